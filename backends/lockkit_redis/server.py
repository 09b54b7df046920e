"""The routes of this store: a server, a fresh connection to one, a sentinel. Performers have connections."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from lockkit.lib.clock import Clock
from lockkit.store.urls import at
from lockkit_redis.address import Address

__all__ = ["ClusterMap", "Fresh", "Sentinel", "Server"]


class ClusterMap(Protocol):
    """The map of a Cluster, as its nodes use it; see :class:`lockkit_redis.topology.Cluster`."""

    def moved(self, server: Server, error: Any) -> Server: ...

    def trouble(self, server: Server, error: BaseException) -> None: ...


class Server:
    """A route to a server, or to the primary that the sentinels name, and the time on the server's clock.

    Args:
        address: How to reach the server and log in.
        name: The name of this client, for CLIENT LIST.
        clock: CLOCK_BOOTTIME seconds.
        namespace: The namespace that an error about missing rights names.
        cluster: The map, for a node of a Cluster.

    Attributes:
        where: The URL, without secrets.
        node: Host and port: in a Cluster all nodes share the URL.
    """

    def __init__(
        self,
        address: Address,
        name: str,
        clock: Clock,
        namespace: str = "default",
        cluster: ClusterMap | None = None,
    ) -> None:
        self.where = address.shown
        self.node = at(*address.hosts[0])
        self.namespace = namespace
        self.address = address
        self.name = name
        self.cluster = cluster
        self._clock = clock
        self._ahead = (clock.wall() - clock.now()) * 1000.0

    def heard(self, server: int) -> None:
        """Note what the server's clock showed just now (ms since the epoch), as a reply said."""
        self._ahead = server - self._clock.now() * 1000.0

    def reckoned(self, here: float) -> int:
        """The server's time at our time ``here``, by its last reply; by our own clock before the first."""
        return int(here * 1000.0 + self._ahead)

    def trouble(self, error: BaseException) -> None:
        """Note an error of this server."""
        if self.cluster is not None:
            self.cluster.trouble(self, error)


class Fresh(NamedTuple):
    """The route to a server over a connection of its own, which is closed after one request."""

    server: Server


class Sentinel(NamedTuple):
    """The route to a sentinel."""

    place: tuple[str, int]
    address: Address
