"""Which connection serves a key: that to the one server, or that to the node of a Cluster which has the key's slot.

A Cluster's map of slots is read when the store is opened, when a node says that a slot has MOVED, and when a node is not to
be reached or has become a replica. Such an answer is a definite refusal; the protocol asks again a moment later, by the
new map. While a slot is on its way (ASK, TRYAGAIN) its locks are refused: a script of several keys runs on neither side
then.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import redis.crc
import redis.exceptions as theirs

from lockkit.errors import BackendUnavailable
from lockkit.spi import Refused, Unknown
from lockkit_redis.address import Address
from lockkit_redis.line import Line, pack
from lockkit_redis.wire import Wire

__all__ = ["Cluster", "Router", "Single"]

_SLOTS = 16384
_PATIENCE = 1.0
_SOONEST = 0.1
"""Seconds between two readings of the map."""
_slot = functools.lru_cache(maxsize=4096)(redis.crc.key_slot)


class Link(Protocol):
    """What can carry commands to one server."""

    where: str

    def call(self, packed: bytes, budget: float) -> Any: ...

    def row(self, packed: bytes, budget: float, count: int) -> list[Any]: ...

    def another(self) -> Wire: ...


class Router(Protocol):
    """Finds the link for a key."""

    where: str
    one: bool
    """All keys are in one place, so commands for several may go in a row."""

    def at(self, key: str) -> Link: ...

    def wires(self) -> Sequence[Wire]:
        """Every server that has keys."""

    def connect(self, budget: float) -> Line:
        """A connection to any server: what is published at one is heard at all."""

    def close(self) -> None: ...


class Single:
    """One server, or one primary behind Sentinel."""

    one = True

    def __init__(self, address: Address, name: str, greeted: Callable[[Sequence[Any]], None]) -> None:
        self.where = address.shown
        self._wire = Wire(address, name, greeted)
        self.connect = self._wire.connect
        self.close = self._wire.close

    def at(self, key: str) -> Link:  # noqa: ARG002 - all keys are there
        """See :class:`Router`."""
        return self._wire

    def wires(self) -> Sequence[Wire]:
        """See :class:`Router`."""
        return (self._wire,)


class Cluster:
    """The nodes of a Cluster.

    Raises:
        Refused: None of the hosts in the URL answers as one.
    """

    one = False

    def __init__(self, address: Address, name: str, greeted: Callable[[Sequence[Any]], None]) -> None:
        self.where = address.shown
        self._address = address
        self._name = name
        self._greeted = greeted
        self._mutex = threading.RLock()
        self._wires: dict[tuple[str, int], Wire] = {}
        self._owners: list[Wire | None] = [None] * _SLOTS
        self._stale = True
        self._read_at = 0.0
        try:
            self._refresh()
        except BaseException:
            self.close()
            raise

    def at(self, key: str) -> Link:
        """See :class:`Router`."""
        if self._stale:
            self._refresh()
        slot = _slot(key.encode())
        wire = self._owners[slot]
        if wire is None:
            self._stale = True
            raise Refused(
                BackendUnavailable(
                    f"{self.where}: no node has slot {slot}", hint="see CLUSTER INFO; it must be ok"
                )
            )
        return wire

    def wires(self) -> Sequence[Wire]:
        """See :class:`Router`."""
        if self._stale:
            self._refresh()
        return list(dict.fromkeys(wire for wire in self._owners if wire is not None))

    def connect(self, budget: float) -> Line:
        """See :class:`Router`."""
        trouble: Refused | None = None
        for wire in self.wires():
            try:
                return wire.connect(budget)
            except Refused as refusal:
                trouble = refusal
        raise trouble or Refused(BackendUnavailable(f"{self.where}: no node can be reached"))

    def close(self) -> None:
        """See :class:`Router`."""
        for wire in list(self._wires.values()):
            wire.close()

    def _trouble(self, error: BaseException) -> None:
        """What a wire met: the map may be out of date."""
        if isinstance(error, theirs.MovedError):
            self._owners[error.slot_id] = self._wire((error.host, error.port))
            self._stale = True
        elif isinstance(error, (OSError, theirs.ConnectionError, theirs.TimeoutError, theirs.ReadOnlyError)):
            self._stale = True

    def _wire(self, place: tuple[str, int]) -> Wire:
        with self._mutex:
            wire = self._wires.get(place)
            if wire is None:
                node = self._address._replace(hosts=(place,))
                wire = self._wires[place] = Wire(node, self._name, self._greeted, self._trouble)
            return wire

    def _refresh(self) -> None:
        """Read the map from the first node that answers."""
        with self._mutex:
            if not self._stale or time.monotonic() - self._read_at < _SOONEST:
                return
            self._read_at = time.monotonic()
            trouble: Refused | Unknown | None = None
            for place in dict.fromkeys((*self._wires, *self._address.hosts)):
                try:
                    ranges = self._wire(place).call(pack("CLUSTER", "SLOTS"), _PATIENCE)
                except (Refused, Unknown) as error:
                    trouble = error
                    continue
                owners: list[Wire | None] = [None] * _SLOTS
                for first, last, primary, *_ in ranges:
                    host = (primary[0] or b"").decode() or place[0]
                    owners[first : last + 1] = [self._wire((host, primary[1]))] * (last + 1 - first)
                self._owners = owners
                self._stale = False
                return
            if all(owner is None for owner in self._owners):
                raise trouble or Refused(BackendUnavailable(f"{self.where}: no node answers"))
