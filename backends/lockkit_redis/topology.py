"""The server that has a key: the only one, or the node of a Cluster that has the key's slot.

A Cluster's map of slots is read when the store is opened, when a node says that a slot has MOVED, and when a node is not to
be reached or has become a replica; but for the first time in the background, so that nobody waits for a node whose slots are
of no interest. Such an answer is a definite refusal; the protocol asks again a moment later, by the new map. While a slot is on its way (ASK, TRYAGAIN) its locks are refused: a script of several keys runs on neither side
then.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Sequence
from typing import Protocol

import redis.exceptions as theirs

from lockkit.clock import Clock
from lockkit.errors import BackendUnavailable
from lockkit.store.spi import Refused, Unknown
from lockkit_redis.address import Address
from lockkit_redis.connection import Connection, pack
from lockkit_redis.private import slot_of
from lockkit_redis.server import Server

__all__ = ["Cluster", "Single", "Topology"]

_SLOTS = 16384
_PATIENCE = 1.0
"""Seconds that reading the map anew may take."""
_LEAST = 0.05
_SOONEST = 0.1
"""Seconds between two readings of the map."""
_slot = functools.lru_cache(maxsize=4096)(slot_of)


class Topology(Protocol):
    """The servers of a store, and which of them has a key."""

    where: str
    namespace: str
    one: bool
    """All keys are in one place, so commands for several may go in a row."""

    def at(self, key: str) -> Server: ...

    def servers(self) -> Sequence[Server]:
        """Every server that has keys."""

    def connect(self, budget: float) -> Connection:
        """A connection to any server: what is published at one is heard at all."""

    def serves(self, connection: Connection) -> bool:
        """Whether the server of a connection is still one of them."""

    def close(self) -> None: ...


class Single:
    """One server, or one primary behind Sentinel."""

    one = True

    def __init__(self, address: Address, name: str, clock: Clock, namespace: str, budget: float) -> None:  # noqa: ARG002 - it has no map to read
        self.where = address.shown
        self.namespace = namespace
        self._server = Server(address, name, clock, namespace=namespace)
        self.connect = self._server.connect
        self.close = self._server.close

    def serves(self, connection: Connection) -> bool:  # noqa: ARG002 - there is but one
        """See :class:`Topology`."""
        return True

    def at(self, key: str) -> Server:  # noqa: ARG002 - all keys are there
        """See :class:`Topology`."""
        return self._server

    def servers(self) -> Sequence[Server]:
        """See :class:`Topology`."""
        return (self._server,)


class Cluster:
    """The nodes of a Cluster.

    Raises:
        Refused: None of the hosts in the URL answers as one.
    """

    one = False

    def __init__(self, address: Address, name: str, clock: Clock, namespace: str, budget: float) -> None:
        self.where = address.shown
        self.namespace = namespace
        self._address = address
        self._name = name
        self._clock = clock
        self._mutex = threading.RLock()
        self._servers: dict[tuple[str, int], Server] = {}
        self._owners: list[Server | None] = [None] * _SLOTS
        self._troubled: dict[tuple[str, int], float] = {}
        self._stale = self._reading = False
        self._read_at = time.monotonic()
        try:
            self._read(budget)
        except BaseException:
            self.close()
            raise

    def at(self, key: str) -> Server:
        """See :class:`Topology`."""
        if self._stale:
            self._look_again()
        slot = _slot(key.encode())
        server = self._owners[slot]
        if server is None:
            self._stale = True
            raise Refused(
                BackendUnavailable(
                    f"{self.where}: no node has slot {slot}", hint="see CLUSTER INFO; it must be ok"
                )
            )
        return server

    def servers(self) -> Sequence[Server]:
        """See :class:`Topology`."""
        if self._stale:
            self._look_again()
        return list(dict.fromkeys(server for server in self._owners if server is not None))

    def connect(self, budget: float) -> Connection:
        """See :class:`Topology`."""
        trouble: Refused | None = None
        end = time.monotonic() + budget
        servers = self.servers()
        for left, server in zip(range(len(servers), 0, -1), servers, strict=True):
            try:
                return server.connect((end - time.monotonic()) / left)
            except Refused as refusal:
                trouble = refusal
        text = f"{self.where}: no node can be reached"
        raise trouble or Refused(BackendUnavailable(text, hint="see CLUSTER INFO; is one running?"))

    def serves(self, connection: Connection) -> bool:
        """See :class:`Topology`."""
        return connection.server in self.servers()

    def close(self) -> None:
        """See :class:`Topology`."""
        for server in list(self._servers.values()):
            server.close()

    def _trouble(self, place: tuple[str, int], error: BaseException) -> None:
        """Note an error from a node: the map may be out of date."""
        if isinstance(error, theirs.MovedError):
            self._owners[error.slot_id] = self._server((error.host or place[0], error.port))
            self._stale = True
        elif isinstance(error, _AWAY):
            self._troubled[place] = time.monotonic()
            self._stale = True

    def _server(self, place: tuple[str, int]) -> Server:
        with self._mutex:
            server = self._servers.get(place)
            if server is None:
                node = self._address._replace(hosts=(place,))
                trouble = functools.partial(self._trouble, place)
                server = self._servers[place] = Server(node, self._name, self._clock, trouble, self.namespace)
            return server

    def _look_again(self) -> None:
        """Read the map in the background: a node that is silent must not hold up those who ask the others."""
        with self._mutex:
            if self._reading or time.monotonic() - self._read_at < _SOONEST:
                return
            self._reading = True
        try:
            threading.Thread(target=self._reread, name="lockkit-redis-map", daemon=True).start()
        except RuntimeError:  # the process can start no more threads
            self._reread()

    def _reread(self) -> None:
        self._stale = False
        try:
            self._read()
        except (Refused, Unknown):
            self._stale = True
        except BaseException:
            self._stale = True
            raise
        finally:
            self._read_at = time.monotonic()
            self._reading = False

    def _read(self, budget: float = _PATIENCE) -> None:
        """Read the map from the first node that has all of it, or else from the one that has most.

        Those that were in trouble last are asked last: a node that was cut off, or taken out, still answers, with what it
        last knew or nothing.

        Raises:
            Refused, Unknown: None answers, or none knows of any slot.
        """
        places = list(dict.fromkeys((*self._servers, *self._address.hosts)))
        places.sort(key=lambda place: self._troubled.get(place, 0.0))
        end = time.monotonic() + budget
        trouble: Refused | Unknown | None = None
        best: list[Server | None] = []
        most = 0
        for left, place in zip(range(len(places), 0, -1), places, strict=True):
            share = max((end - time.monotonic()) / left, _LEAST)
            try:
                ranges = self._server(place).call(_MAP, share)
            except (Refused, Unknown) as error:
                trouble = error
                continue
            owners: list[Server | None] = [None] * _SLOTS
            for first, last, primary, *_ in ranges:
                host = (primary[0] or b"").decode() or place[0]
                owners[first : last + 1] = [self._server((host, primary[1]))] * (last + 1 - first)
            known = _SLOTS - owners.count(None)
            if known > most:
                best, most = owners, known
            if known == _SLOTS:
                break
        if not best:
            text = f"{self.where}: no node that answers has any slots"
            raise trouble or Refused(BackendUnavailable(text, hint="see CLUSTER INFO and CLUSTER SLOTS"))
        self._owners = best
        self._forget({place for place, server in self._servers.items() if server in set(best)})

    def _forget(self, needed: set[tuple[str, int]]) -> None:
        """Close the connections to nodes that have no slots any more, but for those that the URL names."""
        with self._mutex:
            for place in [*self._servers]:
                if place not in needed and place not in self._address.hosts:
                    self._servers.pop(place).close()
                    self._troubled.pop(place, None)


_MAP = pack("CLUSTER", "SLOTS")
_AWAY = (
    OSError,
    theirs.ConnectionError,
    theirs.TimeoutError,
    theirs.ReadOnlyError,
    theirs.ClusterDownError,
    theirs.MasterDownError,
)
"""Errors that say that a node is not what the map says it is."""
