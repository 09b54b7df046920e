"""A cluster of etcd servers."""

from __future__ import annotations

import contextlib
from typing import Any

from lockkit.testing.processes import PATIENCE, ServerFailed, until
from support.servers.etcd import EtcdServer, Place
from support.servers.etcd_gateway import EtcdRefused
from support.servers.group import LedGroup

__all__ = ["EtcdCluster"]


class EtcdCluster(LedGroup[EtcdServer]):
    """Members of etcd."""

    def __init__(self, *, size: int = 3, **options: Any) -> None:
        """Start it, and wait until every member answers and all agree on a leader.

        Args:
            size: How many members.
            options: The options of every member, see :class:`~support.servers.etcd.EtcdServer`.

        Raises:
            ServerMissing: A program is not installed.
            ServerFailed: They did not start, or did not agree.
        """
        super().__init__()
        self._start_somewhere(lambda: self._begin(size, options))

    def url(self, user: str | None = None, password: str | None = None) -> str:
        """``etcd://host:port,host:port,host:port``; ``etcds:`` with TLS."""
        first, *others = self.members
        return ",".join([first.url(user, password), *(each.address for each in others)])

    # -- who leads

    def leader(self) -> EtcdServer:
        """The leader, in the latest view that a running member has.

        Raises:
            ServerFailed: There is none at the moment.
        """
        if found := self._latest(self._views()):
            return found
        raise ServerFailed("the cluster has no leader")

    def followers(self) -> list[EtcdServer]:
        """The running members but the leader."""
        leader = self.leader()
        return [each for each in self.running if each is not leader]

    def until_healthy(self, seconds: float = PATIENCE) -> EtcdServer:
        """See :class:`LedGroup`. A member serves if it answers a read that needs a majority."""
        for each in self.running:
            each.until_ready(seconds)
        leader = None

        def agreed() -> bool:
            nonlocal leader
            leader = self._agreed()
            return leader is not None

        until(agreed, "all members agree on a leader", seconds)
        assert leader is not None
        return leader

    # -- how it starts

    def _begin(self, size: int, options: dict[str, Any]) -> None:
        self.members = []
        places = [Place.free(f"member{at + 1}") for at in range(size)]
        for place in places:
            member = EtcdServer(place=place, among=places, **options)
            self.members.append(self._servers.enter_context(member))
            member.until_serves_peers()
        for member in self.members:
            member.until_ready()
        self.until_healthy()
        self.members[0].demand_logins()

    def _agreed(self) -> EtcdServer | None:
        views = self._views()
        seen = {(view["raftTerm"], view.get("leader")) for _, view in views}
        return self._latest(views) if len(views) == len(self.running) and len(seen) == 1 else None

    @staticmethod
    def _latest(views: list[tuple[EtcdServer, Any]]) -> EtcdServer | None:
        if not views:
            return None
        _, latest = max(views, key=lambda view: int(view[1]["raftTerm"]))
        # Without a leader the field is left out.
        return next(
            (each for each, view in views if view["header"]["member_id"] == latest.get("leader")), None
        )

    def _views(self) -> list[tuple[EtcdServer, Any]]:
        views = []
        for each in self.running:
            with contextlib.suppress(EtcdRefused, OSError):
                views.append((each, each.status()))
        return views
