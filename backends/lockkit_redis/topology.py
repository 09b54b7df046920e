"""The server that has a key: the only one, or the node of a Cluster that has the key's slot.

A Cluster's map of slots is read when the store is opened, and again after a node answers MOVED, cannot be
reached or has become a replica. Calls wait only for the first reading, and not for nodes that they do not
need. While a slot is being moved its locks are refused: neither side runs a script of several keys.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import redis.exceptions as theirs

from lockkit.errors import BackendUnavailable
from lockkit.store.budgets import shares
from lockkit.store.exchanges import Drop, Exchange, Start
from lockkit.store.spi import Refused, Unknown
from lockkit_redis.address import Address
from lockkit_redis.connection import pack
from lockkit_redis.private import slot_of
from lockkit_redis.requests import ask
from lockkit_redis.server import Server

__all__ = ["SLOTS", "SLOT_MAP", "Cluster", "Topology"]

SLOTS = 16384
SLOT_MAP = pack("CLUSTER", "SLOTS")
_PATIENCE = 1.0
"""Seconds that reading the map anew may take."""
_SOONEST = 0.1
"""Seconds between two readings of the map."""
_slot = functools.lru_cache(maxsize=4096)(slot_of)


class Topology:
    """One server, or one primary behind Sentinel.

    Attributes:
        one: All keys are on one server, so commands for several may go in a row.
        stale: The map should be read again.
    """

    one = True
    stale = False

    def __init__(self, server: Server) -> None:
        self._server = server

    def at(self, key: str) -> Server:  # noqa: ARG002 - all keys are there
        """The server that has a key.

        Raises:
            Refused: There is none.
        """
        return self._server

    def servers(self) -> Sequence[Server]:
        """Every server that has keys."""
        return (self._server,)

    def look_again(self) -> Exchange[None]:
        """Have the map read in the background, if that is due: a silent node must not delay other calls."""
        yield from ()


class Cluster(Topology):
    """The nodes of a Cluster. The map is empty until :meth:`read` is performed.

    Args:
        address: The URL: its hosts are the first to be asked for the map.
        node: Makes the server of a node, from its address.
    """

    one = False

    def __init__(self, address: Address, node: Callable[[Address, Cluster], Server]) -> None:
        self._where = address.shown
        self._address = address
        self._node = node
        self._mutex = threading.RLock()
        self._servers: dict[tuple[str, int], Server] = {}
        self._owners: list[Server | None] = [None] * SLOTS
        self._troubled: dict[Server, float] = {}
        self._reading = False
        self._read_at = time.monotonic()

    def at(self, key: str) -> Server:
        """See :class:`Topology`."""
        return self.of(_slot(key.encode()))

    def of(self, slot: int) -> Server:
        """The node that has a slot.

        Raises:
            Refused: There is none.
        """
        server = self._owners[slot]
        if server is None:
            self.stale = True
            hint = "see CLUSTER INFO; it must be ok"
            raise Refused(BackendUnavailable(f"{self._where}: no node has slot {slot}", hint=hint))
        return server

    def servers(self) -> Sequence[Server]:
        """See :class:`Topology`."""
        return list(dict.fromkeys(server for server in self._owners if server is not None))

    def moved(self, server: Server, error: Any) -> Server:
        """The node that a node names in place of itself (MOVED, ASK)."""
        return self._node_at((error.host or server.address.hosts[0][0], error.port))

    def trouble(self, server: Server, error: BaseException) -> None:
        """Note an error from a node: the map may be out of date."""
        if isinstance(error, theirs.MovedError):
            self._owners[error.slot_id] = self.moved(server, error)
            self.stale = True
        elif isinstance(error, _AWAY):
            self._troubled[server] = time.monotonic()
            self.stale = True

    def _node_at(self, place: tuple[str, int]) -> Server:
        with self._mutex:
            if place not in self._servers:
                self._servers[place] = self._node(self._address._replace(hosts=(place,)), self)
            return self._servers[place]

    def look_again(self) -> Exchange[None]:
        """See :class:`Topology`."""
        try:  # a signal may strike as soon as the flag is set
            with self._mutex:
                if self._reading or time.monotonic() - self._read_at < _SOONEST:
                    return
                self._reading = True
            yield Start(self._reread, "lockkit-redis-map")
        except BaseException:
            self._reading = False
            raise

    def _reread(self) -> Exchange[None]:
        self.stale = False
        try:
            yield from self.read(time.monotonic() + _PATIENCE)
        except (Refused, Unknown):
            self.stale = True
        except BaseException:
            self.stale = True
            raise
        finally:
            self._read_at = time.monotonic()
            self._reading = False

    def read(self, end: float) -> Exchange[None]:
        """Read the map from the first node that has all of it, or else from the one that has most.

        Nodes that were in trouble last are asked last: one that was cut off or removed still has an old map.

        Raises:
            Refused, Unknown: No node has a map.
        """
        places = list(dict.fromkeys((*self._servers, *self._address.hosts)))
        places.sort(key=lambda place: self._troubled.get(self._node_at(place), 0.0))
        trouble: Refused | Unknown | None = None
        best: list[Server | None] = []
        most = 0
        for place, until in shares(places, end):
            try:
                _, replies = yield from ask(self._node_at(place), SLOT_MAP, until)
            except (Refused, Unknown) as error:
                trouble = error
                continue
            owners: list[Server | None] = [None] * SLOTS
            for first, last, primary, *_ in replies[0]:
                host = (primary[0] or b"").decode() or place[0]
                owners[first : last + 1] = [self._node_at((host, primary[1]))] * (last + 1 - first)
            known = SLOTS - owners.count(None)
            if known > most:
                best, most = owners, known
            if known == SLOTS:
                break
        if not best:
            text = f"{self._where}: no node that answers has any slots"
            raise trouble or Refused(BackendUnavailable(text, hint="see CLUSTER INFO and CLUSTER SLOTS"))
        self._owners = best
        for server in self._forgotten(set(best)):
            yield Drop(server)

    def _forgotten(self, needed: set[Server | None]) -> list[Server]:
        """Forget the nodes that have no slots any more, but for those that the URL names."""
        with self._mutex:
            gone = [
                server
                for place, server in self._servers.items()
                if server not in needed and place not in self._address.hosts
            ]
            for server in gone:
                del self._servers[server.address.hosts[0]]
                self._troubled.pop(server, None)
            return gone


_AWAY = (
    OSError,
    theirs.ConnectionError,
    theirs.TimeoutError,
    theirs.ReadOnlyError,
    theirs.ClusterDownError,
    theirs.MasterDownError,
)
"""Errors that say that a node is not what the map says it is."""
