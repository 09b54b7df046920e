"""An ensemble of ZooKeeper servers."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

from lockkit.testing.processes import PATIENCE, ServerFailed, until
from support.servers.group import LedGroup
from support.servers.proxy import Proxy
from support.servers.zookeeper import Place, ZooKeeperServer

__all__ = ["ZooKeeperEnsemble"]

REQUEST = b"\0\0\0\1"
"""The beginning of a packet in which a follower passes on a request (``Leader.REQUEST``)."""


class ZooKeeperEnsemble(LedGroup[ZooKeeperServer]):
    """Members of ZooKeeper.

    Attributes:
        proxies: With ``proxied``, the proxies between followers and leaders, by their numbers:
            ``proxies[1, 3]`` is in use while 1 follows 3.
    """

    proxies: dict[tuple[int, int], Proxy]

    def __init__(self, *, size: int = 3, proxied: bool = False, **options: Any) -> None:
        """Start it, and wait until every member serves.

        Args:
            size: How many members.
            proxied: Put a proxy between any two members, so that a follower can be cut off, or lag.
            options: The options of every member, see :class:`~support.servers.zookeeper.ZooKeeperServer`.

        Raises:
            ServerMissing: A program is not installed.
            ServerFailed: They did not start, or did not agree.
        """
        super().__init__()
        self._start_somewhere(lambda: self._begin(size, options, proxied=proxied))

    def url(self, chroot: str = "", user: str | None = None, password: str | None = None) -> str:
        """``zookeeper://host:port,host:port,host:port/chroot``; ``zookeepers:`` with TLS."""
        first, *others = self.members
        return (
            ",".join([first.url(user=user, password=password), *(each.address for each in others)]) + chroot
        )

    # -- who leads

    def leader(self) -> ZooKeeperServer:
        """The member that leads, which may be one that has not noticed yet that it no longer does.

        Raises:
            ServerFailed: There is none at the moment.
        """
        for each in self.running:
            if each.mode == "leader":
                return each
        raise ServerFailed("the ensemble has no leader")

    def followers(self) -> list[ZooKeeperServer]:
        """The running members that follow."""
        return [each for each in self.running if each.mode == "follower"]

    def until_healthy(self, seconds: float = PATIENCE) -> ZooKeeperServer:
        until(self._agreed, "one member leads and all others follow", seconds)
        for each in self.running:
            each.until_ready(seconds)
        return self.leader()

    # -- who hears whom

    def cut_off(self, follower: ZooKeeperServer) -> None:
        """Cut a follower and its leader from each other, unnoticed; clients still reach the follower.

        It serves on until ``syncLimit`` ticks after it last heard its leader, and then nobody.
        """
        self._proxy(follower).hold()

    def isolate(self, leader: ZooKeeperServer) -> None:
        """Cut a leader and all others from each other, without notice to either, until they are healed.

        The others elect another leader ``syncLimit`` ticks later, when the old one finds out unless paused.
        """
        for pair, proxy in self.proxies.items():
            if leader.place.number in pair:
                proxy.hold()

    def depose(self, leader: ZooKeeperServer) -> ZooKeeperServer:
        """Isolate a leader and restart all others without it, as by a power cut. Returns the new leader.

        The old one does not know, and goes on for ``syncLimit`` ticks.
        """
        others = [each for each in self.members if each is not leader]
        self.isolate(leader)
        for each in others:
            each.kill()
        starts = [threading.Thread(target=each.start) for each in others]  # each waits for a majority
        for start in starts:
            start.start()
        for start in starts:
            start.join()
        until(lambda: any(each.mode == "leader" for each in others), "one of the others leads")
        return next(each for each in others if each.mode == "leader")

    def cut_off_at_request(self, follower: ZooKeeperServer) -> None:
        """Let the leader hear one more request of a follower's clients, and no more; its own messages arrive.

        So the leader learns of no more sessions of the follower: those come with the answers to its pings.
        """
        self._proxy(follower).hold_behind(lambda piece: piece.startswith(REQUEST))

    def lag(self, follower: ZooKeeperServer, seconds: float) -> None:
        """Delay all that a follower hears. Less than ``syncLimit`` ticks, or the follower is given up."""
        self._proxy(follower).delay = seconds

    def heal(self) -> None:
        """Let everybody hear everybody at once again."""
        for proxy in self.proxies.values():
            proxy.delay = 0.0
            proxy.heal()

    def _proxy(self, follower: ZooKeeperServer) -> Proxy:
        for (number, _), proxy in self.proxies.items():
            if number == follower.place.number and proxy.connections:
                return proxy
        raise ServerFailed(f"member {follower.place.number} follows nobody, or the ensemble is not proxied")

    # -- how it starts

    def _begin(self, size: int, options: dict[str, Any], *, proxied: bool) -> None:
        self.members = []
        self.proxies = {}
        places = [Place.free(at + 1) for at in range(size)]
        if proxied:
            for one in places:
                for other in places:
                    if one is not other:
                        # A new leader listens a moment after its followers have learned of it.
                        proxy = Proxy((Proxy.host, other.quorum_port), patience=2.0)
                        self.proxies[one.number, other.number] = self._servers.enter_context(proxy)
        for place in places:
            among = [self._as_seen(place, other) for other in places]
            self.members.append(
                self._servers.enter_context(ZooKeeperServer(place=place, among=among, **options))
            )
        self.until_healthy()

    def _as_seen(self, one: Place, other: Place) -> Place:
        proxy = self.proxies.get((one.number, other.number))
        return dataclasses.replace(other, quorum_port=proxy.port) if proxy else other

    def _agreed(self) -> bool:
        modes = [each.mode for each in self.running]
        return modes.count("leader") == 1 and modes.count("follower") == len(modes) - 1
