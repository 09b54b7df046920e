"""One reading of a store for the exporter: each queue once, judged as in recovery, and summed up by label."""

from __future__ import annotations

import heapq
import logging
import time
from typing import TYPE_CHECKING

from lockkit.errors import BackendUnavailable, CapabilityError, LockkitError, OutcomeUnknown
from lockkit.facts import Owner
from lockkit.lib.printable import printable
from lockkit.notes.last_holds import last_hold
from lockkit.observe.checks import CheckContext
from lockkit.observe.decisions import Tiers
from lockkit.observe.instruments import OTHER
from lockkit.observe.oracles import HOOK, Oracles
from lockkit.values.names import STANDING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from lockkit.facts import ClaimInfo, LockInfo
    from lockkit.observe.lock_labels import LockLabels
    from lockkit.sync.client import Client

__all__ = ["LastHeld", "Reading", "read_store"]

_log = logging.getLogger("lockkit.exporter")
_BLOCKED = 100
"""The longest waits that are shown with who waits and who holds."""
_VERSIONS = 20
"""The versions and layouts of clients that have a value of their own."""
_ORACLES = 1.0
"""Seconds that each oracle may take: a scrape is short."""
_ZOMBIES = ("gone", "survivors", "silent")


class Reading:
    """Values by metric and values of labels."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, tuple[str, ...]], float] = {}

    def set(self, metric: str, labels: tuple[str, ...], value: float) -> None:
        self.values[metric, labels] = float(value)

    def add(self, metric: str, labels: tuple[str, ...], by: float) -> None:
        self.values[metric, labels] = self.values.get((metric, labels), 0.0) + by

    def top(self, metric: str, labels: tuple[str, ...], value: float) -> None:
        """Set a value unless a larger one is there."""
        self.values[metric, labels] = max(self.values.get((metric, labels), 0.0), float(value))


class LastHeld:
    """When each configured lock was last held, as seen by the exporter or left by a holder in the store.

    Of a lock that was held neither way, the time of the exporter's first look.

    Args:
        labels: The labels of the locks.
        names: The labels that are names, and of which holders leave the time.
        began: The time of the first look, in seconds since 1970.
    """

    def __init__(self, labels: Iterable[str], names: Collection[str], began: float) -> None:
        self._labels = tuple(labels)
        self._names = names
        self._began = began
        self._known: dict[str, float] = {}

    def saw(self, lock: str, at: float) -> None:
        """Note that a lock was held at this time."""
        if lock in self._labels:
            self._known[lock] = max(at, self._known.get(lock, at))

    def read(self, client: Client, until: float) -> bool:
        """Read what holders left, a request a name; True if some was unreadable, or the time ran out."""
        for name in self._names:
            if time.monotonic() >= until:
                return True
            try:
                left = last_hold(client, name)
            except (BackendUnavailable, OutcomeUnknown):
                raise
            except LockkitError:
                return True  # this login may not read it
            if left is not None:
                self.saw(name, min(left, time.time()))
        return False

    def times(self) -> Mapping[str, float]:
        """The times by label, in seconds since 1970."""
        return {lock: self._known.get(lock, self._began) for lock in self._labels}


def read_store(client: Client, label: LockLabels, last_held: LastHeld, most: int, until: float) -> Reading:
    """Read every queue of a namespace. Raises nothing that a store may raise.

    Args:
        client: The client of the store and namespace.
        label: Gives the label of a lock.
        last_held: When each lock of the configuration was last held; brought up to date.
        most: The most locks to read.
        until: When to stop, by ``time.monotonic()``; the rest is marked as missing.
    """
    reading = Reading()
    config = client.config
    tiers = Tiers(config.age_warning, config.age_soft, config.age_hard)
    look = CheckContext(client, tiers, Oracles(client.plugins.implementations(HOOK), _ORACLES))
    clients: set[tuple[Owner, int]] = set()
    partial = False
    try:
        names = client.names()
        reading.set("lockkit_store_up", (), 1)
        reading.set("lockkit_drained", (), _drained(client))
        for pattern in label.patterns:  # so that the graph of an unused lock is at 0, and does not end
            for metric in ("lockkit_locks", "lockkit_holders", "lockkit_waiters"):
                reading.set(metric, (pattern,), 0)
        for at, name in enumerate(names):
            if at >= most or time.monotonic() >= until:
                partial = True
                break
            info = look.queue(name)
            if info is not None and info.claims:
                lock = label(name)
                _measure(reading, lock, info)
                if name not in STANDING:
                    _judge(reading, look, lock, info)
                clients.update((_process(claim.owner), claim.layout) for claim in info.claims)
                if info.holders:
                    last_held.saw(lock, info.read_at)
        partial = last_held.read(client, until) or partial
    except LockkitError as error:
        _log.warning("the store could not be read for metrics: %s", printable(str(error)))
        reading.set("lockkit_store_up", (), 0)
        partial = True
    for owner, layout in clients:
        reading.add("lockkit_clients", (owner.version or "unknown", str(layout or "unknown")), 1)
    for lock, moment in last_held.times().items():
        reading.set("lockkit_last_held_timestamp_seconds", (lock,), moment)
    largest_only(reading)
    reading.set("lockkit_scrape_partial", (), partial or bool(look.unread))
    return reading


def _process(owner: Owner) -> Owner:
    """The process of an owner, without its task: a process has many."""
    return Owner(
        owner.user,
        owner.host,
        owner.pid,
        owner.boot_id,
        owner.started,
        version=owner.version,
        pid_space=owner.pid_space,
    )


def _drained(client: Client) -> bool:
    try:
        return client.drained() is not None
    except CapabilityError:
        return False


def _measure(reading: Reading, lock: str, info: LockInfo) -> None:
    now, holders, waiters = info.read_at, info.holders, info.waiters
    reading.add("lockkit_locks", (lock,), 1)
    reading.add("lockkit_holders", (lock,), len(holders))
    reading.add("lockkit_waiters", (lock,), len(waiters))
    reading.top("lockkit_longest_queue", (lock,), len(waiters))
    for claim in holders:
        reading.top("lockkit_oldest_hold_seconds", (lock,), max(now - claim.since, 0.0))
    for claim in waiters:
        waited = max(now - claim.since, 0.0)
        reading.top("lockkit_oldest_wait_seconds", (lock,), waited)
        if holders:
            reading.top("lockkit_blocked_seconds", (lock, _who(claim), _who(holders[0])), waited)


def _judge(reading: Reading, look: CheckContext, lock: str, info: LockInfo) -> None:
    for claim in info.claims:
        case = look.case(claim, info.read_at)
        if case is None:
            continue
        if case.kind in _ZOMBIES:
            reading.add("lockkit_zombies", (lock, case.kind), 1)
        if case.tier:
            reading.add("lockkit_overdue_holds", (lock, case.tier), 1)


def largest_only(reading: Reading) -> None:
    """Keep the longest waits that name their owners, and the commonest versions: nothing else bounds them."""
    blocked = [key for key in reading.values if key[0] == "lockkit_blocked_seconds"]
    for key in _but_largest(reading, blocked, _BLOCKED):
        del reading.values[key]
    clients = [key for key in reading.values if key[0] == "lockkit_clients"]
    for key in _but_largest(reading, clients, _VERSIONS):
        reading.add("lockkit_clients", (OTHER, OTHER), reading.values.pop(key))


def _but_largest(
    reading: Reading, keys: Sequence[tuple[str, tuple[str, ...]]], most: int
) -> list[tuple[str, tuple[str, ...]]]:
    kept = set(heapq.nlargest(most, keys, key=lambda key: reading.values[key]))
    return [key for key in keys if key not in kept]


def _who(claim: ClaimInfo) -> str:
    return f"{claim.owner.user or 'somebody'}@{claim.owner.host or 'unknown host'}"
