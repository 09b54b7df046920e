"""Looks at the locks of a store: which of them, in which order, and how many there are in all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

from lockkit.errors import IncompatibleLayout, LockkitError, PermissionDenied
from lockkit.lib.namedtuples import NamedTuple
from lockkit.notes.members import in_pool
from lockkit.values.identity import process_of
from lockkit.views.texts import lock_state

if TYPE_CHECKING:
    from lockkit.facts import ClaimInfo, Drain, LockInfo
    from lockkit.sync.client import Client
    from lockkit.views import parts
    from lockkit.views.traces import Traces

__all__ = [
    "SORTS",
    "Asked",
    "Look",
    "Sort",
    "arranged",
    "is_gate",
    "is_pattern",
    "longest_wait",
    "look",
    "most_contended",
    "requests_waiting",
    "seen",
    "summary",
]

Sort: TypeAlias = Literal["age", "waiters", "name"]
SORTS: tuple[Sort, ...] = ("age", "waiters", "name")
_AT_ONCE = 8
"""The most queues that are read at the same time."""
_FEW = 16
"""The number of queues from which on several are read at the same time."""


class Asked(NamedTuple):
    """A question about the locks of a store.

    Attributes:
        name: A name, or a pattern of names; None for every name that is in use.
        sort: The order.
        limit: The most locks to show; None for all.
        deep: Whether to scan the whole store for names.
        exactly: Whether the name is no pattern, whatever characters it has.
    """

    name: str | None = None
    sort: Sort = "name"
    limit: int | None = None
    deep: bool = False
    exactly: bool = False

    @property
    def one(self) -> bool:
        """Whether a single lock is asked for, which is shown even if it is free."""
        return self.name is not None and (self.exactly or not is_pattern(self.name))


class Look(NamedTuple):
    """The answer of the store.

    Attributes:
        locks: All locks that were asked for, in the order that was asked for.
        unread: The locks that could not be read, with the error of each. The others are shown all the same.
        limit: The most locks to show; None for all.
        traces: What is known of the one name that was asked for, if it is free.
        drained: The mark of the drain of the namespace; None if nobody drains it.
        start: The number of locks to leave out before the first one that is shown.
    """

    locks: Sequence[LockInfo]
    unread: dict[str, LockkitError]
    limit: int | None = None
    traces: Traces | None = None
    drained: Drain | None = None
    start: int = 0

    @property
    def shown(self) -> Sequence[LockInfo]:
        """The locks to show."""
        return self.locks[self.start : None if self.limit is None else self.start + self.limit]


def is_pattern(name: str) -> bool:
    """Whether a name has a wildcard of patterns."""
    return any(char in name for char in "*?[")


def is_gate(info: LockInfo) -> bool:
    """Whether a lock is the gate of a pool, which requests for its members pass one by one."""
    pool = in_pool(info.name)
    return pool is not None and pool[1] is None


def requests_waiting(gate: LockInfo, waiters: Iterable[Sequence[ClaimInfo]]) -> int:
    """The number of waiting requests for members of a pool: at its gate, or for one certain member.

    The request at the gate waits in the queues of members with claims of its own, which count once.

    Args:
        gate: The requests that wait.
        waiters: The claims that wait for each member.
    """
    at_gate = {process_of(one.owner) for one in gate.holders}
    others = {one.claim_id for each in waiters for one in each if process_of(one.owner) not in at_gate}
    return len(gate.claims) + len(others)


def look(client: Client, asked: Asked) -> Look:
    """Read the locks that are asked for, and the mark of the namespace."""
    return _look(client, asked)._replace(drained=seen(client))


def _look(client: Client, asked: Asked) -> Look:
    if asked.name is not None and asked.one:
        from lockkit.views.traces import traces

        info = client.inspect(asked.name)
        return Look([info], {}, traces=None if info.claims else traces(client, asked.name))
    unread: dict[str, LockkitError] = {}

    def read(name: str) -> LockInfo | None:
        try:
            return client.inspect(name)
        except (PermissionDenied, IncompatibleLayout) as error:
            unread[name] = error
            return None

    names = client.names(pattern=asked.name, deep=asked.deep)
    if len(names) < _FEW or client.capabilities.scope != "fleet":
        found = [read(name) for name in names]
    else:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(_AT_ONCE) as threads:
            found = list(threads.map(read, names))
    locks = [info for info in found if info is not None and info.claims]
    return arranged(Look(locks, dict(sorted(unread.items())), asked.limit), asked.sort)


def arranged(found: Look, sort: Sort) -> Look:
    """The same look in another order."""
    return found._replace(locks=sorted(found.locks, key=_KEYS[sort]))


def seen(client: Client, namespace: str | None = None) -> Drain | None:
    """The mark of the client's namespace, or of another; None if there is none or it may not be read."""
    try:
        return client.drained(namespace)
    except PermissionDenied:
        return None


def longest_wait(info: LockInfo) -> float:
    """When the claim that has waited longest began to wait; infinity if none waits."""
    return min((claim.since for claim in info.waiters), default=math.inf)


def _by_age(info: LockInfo) -> tuple[float, float, str]:
    """A sort key: first the lock with the longest wait, then the one held longest."""
    return longest_wait(info), min((claim.since for claim in info.holders), default=math.inf), info.name


def _by_waiters(info: LockInfo) -> tuple[float, float, str]:
    """The key of an order in which the lock that most claims wait for comes first."""
    return -len(info.waiters), longest_wait(info), info.name


def _by_name(info: LockInfo) -> tuple[float, float, str]:
    return 0.0, 0.0, info.name


_KEYS = {"age": _by_age, "waiters": _by_waiters, "name": _by_name}


def most_contended(found: Look) -> LockInfo | None:
    """The lock that most claims wait for; None where at most one claim waits for each."""
    most = min(found.locks, key=_by_waiters, default=None)
    return most if most is not None and len(most.waiters) > 1 else None


def summary(look: Look, now: float) -> parts.Summary:
    """The number of locks by state, and the longest wait. A pool's gate is no lock; its waiters count."""
    from collections import Counter

    from lockkit.views import parts

    locks = [info for info in look.locks if not is_gate(info)]
    states = Counter(map(lock_state, locks))
    longest = min(look.locks, key=longest_wait, default=None)
    since = math.inf if longest is None else longest_wait(longest)
    waits = longest is not None and since < math.inf
    return parts.Summary(
        locks=len(locks),
        gates=len(look.locks) - len(locks),
        held=states["held"],
        lingering=states["lingering"],
        waiting=states["waiting"],
        free=states["free"],
        waiters=sum(len(info.waiters) for info in look.locks),
        longest_wait_seconds=max(now - since, 0.0) if waits else None,
        longest_wait_name=longest.name if waits and longest is not None else None,
    )
