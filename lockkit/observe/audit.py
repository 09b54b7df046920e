"""The audit of the past: did holds that exclude each other ever overlap, and did the fences rise?

The check is that of :mod:`lockkit.values.history`, which the tests use. Holds of one boot are compared by
CLOCK_BOOTTIME, which is exact. Holds of different hosts are compared by wall clocks that may differ by
``max_skew``: a longer overlap is certain, and holds that are closer are undecidable. Two holds with one fence
are always a violation, and so is a lower fence accepted by a guarded resource after a higher one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from msgspec.structs import replace

from lockkit.lib.namedtuples import NamedTuple
from lockkit.observe.capacities import capacity_range, least
from lockkit.observe.crowding import crowded
from lockkit.observe.guarded_steps import Overtaken, overtaken
from lockkit.observe.past import Gaps, History, PastHold, PastResize, PastStep, StoreKey
from lockkit.values.history import Period, falling, overlaps, repeated

__all__ = ["MAX_SKEW", "Audit", "Verdict", "Violation", "audit"]

MAX_SKEW = 0.5
"""Seconds by which the wall clocks of two hosts may differ, unless the caller says otherwise."""
Verdict = Literal["held", "violated", "undecidable", "incomplete", "nothing"]
"""held; violated; undecidable (clocks too far apart); incomplete (gaps in journals); nothing (no grants)."""
_LAPSES = ("lost", "max_hold", "collected", "absent")


class Violation(NamedTuple):
    """Two or more holds of one lock that should have excluded each other.

    Attributes:
        kind: ``overlap``; ``fence`` (not rising); ``same fence``; ``stale write`` (lower than one before).
        holds: The holds, in the order of their beginnings.
        seconds: Seconds for which they overlapped for certain; 0 for fences.
        steps: For a stale write the earlier step with the higher fence, and the stale one.
    """

    kind: Literal["overlap", "fence", "same fence", "stale write"]
    key: StoreKey
    name: str
    holds: tuple[PastHold, ...]
    seconds: float = 0.0
    steps: tuple[PastStep, ...] = ()


class Audit(NamedTuple):
    """The result of an audit.

    Attributes:
        grants: The holds that were checked.
        locks: The number of locks.
        hosts: The number of boots of hosts.
        undecidable: Holds that may have overlapped with those of another host, by the skew of the clocks, and
            groups of holds of which one may have lasted for longer than the journals say.
        lapses: Holds that were lost, ended by max_hold, or dropped. Their holder was notified: no violation.
        open: Holds without an end in the journals, certain at their start alone. Later grants that they may
            exclude are undecidable until a max_hold, a ttl after an eviction or a drop, or the client's end.
        unbegun: Holds whose beginning is not in the journals, so that they could not be checked.
        writes: Guarded writes that were accepted, as far as clients of this library made them under a lease.
        refused: Steps of holders that came too late, and that a guarded resource refused.
        first: Seconds since the epoch of the earliest line.
        max_skew: Seconds by which the clocks of hosts were taken to differ.
    """

    verdict: Verdict
    grants: int = 0
    locks: int = 0
    hosts: int = 0
    violations: tuple[Violation, ...] = ()
    undecidable: int = 0
    lapses: int = 0
    open: int = 0
    unbegun: int = 0
    gaps: Gaps = Gaps()
    first: float | None = None
    max_skew: float = MAX_SKEW
    writes: int = 0
    refused: int = 0


def audit(history: History, max_skew: float = MAX_SKEW) -> Audit:
    """Check the holds of a history.

    Args:
        history: The past, as :func:`~lockkit.observe.history.read_history` returns it.
        max_skew: Seconds by which the wall clocks of two hosts may differ.
    """
    locks: dict[tuple[StoreKey, str], list[PastHold]] = {}
    for hold in history.holds:
        locks.setdefault((hold.key, hold.name), []).append(hold)
    violations: list[Violation] = []
    undecidable = 0
    for lock, holds in locks.items():
        found, doubtful = _check(lock, holds, history.resized.get(lock, ()), max_skew)
        violations += found
        undecidable += doubtful
    late = overtaken(history.steps, max_skew)
    violations += [_stale_write(each) for each in late if each.certain]
    undecidable += sum(not each.certain for each in late)
    result = Audit(
        "nothing",
        len(history.holds),
        len(locks),
        len({hold.owner.boot_id for hold in history.holds}),
        tuple(violations),
        undecidable,
        sum(hold.end in _LAPSES for hold in history.holds),
        sum(hold.ended is None for hold in history.holds),
        history.unbegun,
        history.gaps,
        history.first,
        max_skew,
        sum(each.kind == "written" for each in history.steps),
        sum(each.kind == "refused" for each in history.steps),
    )
    return result._replace(verdict=_verdict(result))


def _stale_write(found: Overtaken) -> Violation:
    return Violation("stale write", found.stale.key, found.stale.name, (), 0.0, (found.higher, found.stale))


def _verdict(result: Audit) -> Verdict:
    if result.violations:
        return "violated"
    if result.gaps or result.unbegun:
        return "incomplete"
    if not result.grants and not result.writes:
        return "nothing"
    return "undecidable" if result.undecidable else "held"


def _check(
    lock: tuple[StoreKey, str], holds: Sequence[PastHold], resized: Sequence[PastResize], skew: float
) -> tuple[list[Violation], int]:
    """The violations among the holds of one lock, and how many groups are undecidable."""
    by_id = {hold.claim_id: hold for hold in holds}
    # Groups are found by the least capacity, and each is judged by that of its time.
    holds = [replace(hold, capacity=least(hold, resized, skew)) for hold in holds] if resized else holds
    boots: dict[str, list[PastHold]] = {}
    for hold in holds:
        boots.setdefault(hold.owner.boot_id, []).append(hold)
    found: dict[frozenset[str], Violation] = {}
    groups: list[tuple[Period, ...]] = []

    def add(kind: Literal["overlap", "fence", "same fence"], group: Iterable[Period]) -> None:
        periods = sorted(group)
        members = tuple(by_id[each.who] for each in periods)
        weight, (_, most) = sum(hold.weight for hold in members), capacity_range(members, resized, skew)
        if weight <= most:
            groups.append(tuple(periods))  # doubtful if it fits into less alone
            return
        seconds = 0.0
        if kind == "overlap":
            seconds = max(0.0, min(each.ended for each in periods) - max(each.began for each in periods))
        found.setdefault(frozenset(each.who for each in periods), Violation(kind, *lock, members, seconds))

    for inside in boots.values():
        periods = [_period(hold, _by_boottime) for hold in inside]
        for group in overlaps(periods):
            add("overlap", group)
        for pair in falling(periods):
            add("fence", pair)
    everywhere = [_period(hold, _by_wall) for hold in holds]
    for pair in repeated(everywhere):
        add("same fence", pair)
    boot_of = {hold.claim_id: hold.owner.boot_id for hold in holds}
    longest = {boot: [_longest(hold, skew) for hold in inside] for boot, inside in boots.items()}
    if any(hold.until_boottime is None for hold in holds):
        for inside in longest.values():
            groups += overlaps(_period(hold, _by_boottime) for hold in inside)
    if len(boots) > 1:
        # Each clock is at most half the skew away from one between all of them.
        shorter, longer = _moved(everywhere, -skew / 2), _moved(everywhere, skew / 2)
        for group in _between(overlaps(shorter), boot_of):
            add("overlap", group)
        for group in _between(falling(longer), boot_of):
            add("fence", group)
    by_wall = [[_period(hold, _by_wall) for hold in inside] for inside in longest.values()]
    hidden = {each.who for each in crowded(by_wall, skew / 2)} - set().union(*found)
    doubtful = {
        frozenset(each.who for each in group)
        for group in groups
        if sum(each.weight for each in group)
        > capacity_range([by_id[each.who] for each in group], resized, skew)[0]
    }
    undecidable = sum(not any(one <= group or group <= one for one in found) for group in doubtful)
    return list(found.values()), undecidable + len(hidden)


def _longest(hold: PastHold, skew: float) -> PastHold:
    """A hold until it was over at the latest: for ever if nothing says when."""
    if hold.until_boottime is not None:
        return hold
    lasted = math.inf if hold.ended is None else hold.ended - hold.began
    if hold.latest is not None:
        lasted = min(lasted, hold.latest - hold.began)
    if hold.latest_elsewhere is not None:
        lasted = min(lasted, max(0.0, hold.latest_elsewhere + skew - hold.began))
    return replace(hold, until_boottime=hold.began_boottime + lasted)


def _between(groups: Iterable[tuple[Period, ...]], boot_of: Mapping[str, str]) -> list[tuple[Period, ...]]:
    """The groups whose periods are of more than one boot; the others were compared by CLOCK_BOOTTIME."""
    return [group for group in groups if len({boot_of[each.who] for each in group}) > 1]


def _by_boottime(hold: PastHold) -> tuple[float, float]:
    began = hold.began_boottime
    return began, began if hold.until_boottime is None else max(began, hold.until_boottime)


def _by_wall(hold: PastHold) -> tuple[float, float]:
    began, ended = _by_boottime(hold)
    return hold.began, hold.began + ended - began


def _period(hold: PastHold, times: Callable[[PastHold], tuple[float, float]]) -> Period:
    """The period in which a holder was certain to hold; only its start for a hold without an end."""
    began, ended = times(hold)
    return Period(began, ended, hold.fence, hold.claim_id, hold.weight, hold.capacity)


def _moved(periods: Sequence[Period], by: float) -> list[Period]:
    """The periods, longer by ``by`` seconds at each end (shorter if negative), without those that vanish."""
    moved = [(each, each.began - by, each.ended + by) for each in periods]
    return [
        Period(began, ended, each.fence, each.who, each.weight, each.capacity)
        for each, began, ended in moved
        if began <= ended
    ]
