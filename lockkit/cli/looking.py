"""The locks that ``lockkit status`` shows: which of them, in which order, and how many there are in all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

from lockkit import durations
from lockkit.cli import drains
from lockkit.errors import IncompatibleLayout, LockkitError, PermissionDenied
from lockkit.members import in_pool
from lockkit.namedtuples import NamedTuple

if TYPE_CHECKING:
    from lockkit.cli import parts
    from lockkit.cli.traces import Traces
    from lockkit.client import Client
    from lockkit.facts import Drain, LockInfo

__all__ = ["SORTS", "Asked", "Look", "Sort", "is_pattern", "look", "summary", "summary_words"]

Sort: TypeAlias = Literal["age", "waiters", "name"]
SORTS: tuple[Sort, ...] = ("age", "waiters", "name")
_AT_ONCE = 8
"""Queues that are read at the same time."""
_FEW = 16
"""Queues from which on several are read at the same time."""


class Asked(NamedTuple):
    """A question about the locks of a store.

    Attributes:
        name: A name, or a pattern of names; None for every name that is in use.
        sort: The order.
        limit: The most locks to show; None for all.
        deep: Whether to scan the whole store for names.
    """

    name: str | None = None
    sort: Sort = "name"
    limit: int | None = None
    deep: bool = False

    @property
    def one(self) -> bool:
        """Whether a single lock is asked for, which is shown even if it is free."""
        return self.name is not None and not is_pattern(self.name)


class Look(NamedTuple):
    """The answer of the store.

    Attributes:
        locks: All locks that were asked for, in the order that was asked for.
        unread: The locks that this user may not read, with the errors, so that they do not hide the others.
        limit: The most locks to show; None for all.
        traces: What is known of the one name that was asked for, if it is free.
        drained: The mark of the drain of the namespace; None if nobody drains it.
    """

    locks: Sequence[LockInfo]
    unread: dict[str, LockkitError]
    limit: int | None = None
    traces: Traces | None = None
    drained: Drain | None = None

    @property
    def shown(self) -> Sequence[LockInfo]:
        """The locks to show."""
        return self.locks[: self.limit]


def is_pattern(name: str) -> bool:
    """Whether a name has a character that stands for others in a pattern."""
    return any(char in name for char in "*?[")


def look(client: Client, asked: Asked) -> Look:
    """Read the locks that are asked for, and the mark of the namespace."""
    return _look(client, asked)._replace(drained=drains.seen(client))


def _look(client: Client, asked: Asked) -> Look:
    if asked.name is not None and asked.one:
        from lockkit.cli.traces import traces

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
    return Look(sorted(locks, key=_KEYS[asked.sort]), dict(sorted(unread.items())), asked.limit)


def _longest_wait(info: LockInfo) -> float:
    """When the claim that has waited longest began to wait; infinity if none waits."""
    return min((claim.since for claim in info.waiters), default=math.inf)


def _by_age(info: LockInfo) -> tuple[float, float, str]:
    """The key of an order in which the lock that has been waited for longest comes first, then the one that has been held longest."""
    return _longest_wait(info), min((claim.since for claim in info.holders), default=math.inf), info.name


def _by_waiters(info: LockInfo) -> tuple[float, float, str]:
    """The key of an order in which the lock that most claims wait for comes first."""
    return -len(info.waiters), _longest_wait(info), info.name


def _by_name(info: LockInfo) -> tuple[float, float, str]:
    return 0.0, 0.0, info.name


_KEYS = {"age": _by_age, "waiters": _by_waiters, "name": _by_name}


def summary(look: Look, now: float) -> parts.Summary:
    """How many locks there are, by state, and how long the longest wait is. The gate of a pool is no lock, but claims wait for it."""
    from collections import Counter

    from lockkit.cli import output, parts

    locks = [info for info in look.locks if not _is_gate(info)]
    states = Counter(map(output.lock_state, locks))
    longest = min(look.locks, key=_longest_wait, default=None)
    since = math.inf if longest is None else _longest_wait(longest)
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


def summary_words(look: Look, now: float) -> str:
    """The summary as a line for people: ``2,000 locks: 1,990 held, 10 lingering; 35 claims wait, the longest for 3 min ('x')``.

    A pool's gate is no lock there, but the request that passes it waits: ``8 locks: 8 held; 2 requests wait, ...``.
    """
    gates = [info for info in look.locks if _is_gate(info)]
    told = summary(look, now)
    states = (
        (told.held, "held"),
        (told.lingering, "lingering"),
        (told.waiting, "between two holders"),
        (told.free, "free"),
    )
    line = "1 lock" if told.locks == 1 else f"{told.locks:,} locks"
    if told.locks:
        line += f": {', '.join(f'{count:,} {state}' for count, state in states if count)}"
    waiting, noun = (_requests(look, gates), "request") if gates else (told.waiters, "claim")
    first = min(
        (
            (min(claim.since for claim in (info.claims if _is_gate(info) else info.waiters)), info.name)
            for info in look.locks
            if info.waiters or _is_gate(info)
        ),
        default=None,
    )
    if waiting and first is not None:
        since, name = first
        pool = in_pool(name)
        shown = repr(name) if pool is None else f"{pool[0]!r}"
        waits = f"1 {noun} waits," if waiting == 1 else f"{waiting:,} {noun}s wait, the longest"
        line += f"; {waits} for {durations.show(max(now - since, 0.0))} ({shown})"
    if len(look.shown) < len(look.locks):
        line += f"; {len(look.shown):,} shown (--limit 0 shows all)"
    return line


def _is_gate(info: LockInfo) -> bool:
    """Whether a lock is the gate of a pool, which requests for its members pass one by one."""
    pool = in_pool(info.name)
    return pool is not None and pool[1] is None


def _requests(look: Look, gates: Sequence[LockInfo]) -> int:
    """The number of requests that wait, each of which may have several claims."""
    from lockkit.gpu.known import Known, requests_waiting

    pools = {parts[0] for info in gates if (parts := in_pool(info.name))}
    count = sum(
        len(info.waiters)
        for info in look.locks
        if (parts := in_pool(info.name)) is None or parts[0] not in pools
    )
    for gate in gates:
        pool = (in_pool(gate.name) or ("", None))[0]
        members = [
            info for info in look.locks if (in_pool(info.name) or ("", None))[0] == pool and info is not gate
        ]
        count += requests_waiting(gate, [Known(waiters=info.waiters) for info in members])
    return count
