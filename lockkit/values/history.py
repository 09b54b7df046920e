"""Check a history of holds: certain periods of holders must not overlap, and fences must rise.

A holder is *certain* to hold from reading its grant until it sends the release or its lease is no longer
valid. The certain periods of a name must always fit its capacity. All times are one machine's CLOCK_BOOTTIME.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable

from msgspec import Struct

__all__ = ["Period", "falling", "overlaps", "repeated"]


class Period(Struct, frozen=True, order=True, gc=False):
    """One certain period of one holder.

    Attributes:
        began: The start, after the grant was read, in seconds of CLOCK_BOOTTIME.
        ended: The end, before the release was sent.
        who: The holder, for reports.
    """

    began: float
    ended: float
    fence: int
    who: str = ""
    weight: int = 1
    capacity: int = 1


def overlaps(periods: Iterable[Period]) -> list[tuple[Period, ...]]:
    """Find overlapping periods of one name that exceed its capacity, in O(n log n) and the result's size."""
    found: list[tuple[Period, ...]] = []
    standing: list[tuple[float, int, Period]] = []
    count = itertools.count()
    weight = 0
    for period in sorted(periods):
        while standing and standing[0][0] <= period.began:
            weight -= heapq.heappop(standing)[2].weight
        heapq.heappush(standing, (period.ended, next(count), period))
        weight += period.weight
        if weight > min(each.capacity for _, _, each in standing):
            found.append(tuple(each for _, _, each in sorted(standing)))
    return found


def falling(periods: Iterable[Period]) -> list[tuple[Period, Period]]:
    """Find pairs of one name's periods where the later began after the earlier's end without a higher fence.

    Periods that fit together (readers, permits) are not compared, because each may read its grant late.
    """
    found: list[tuple[Period, Period]] = []
    ordered = sorted(periods)
    by_end = sorted(ordered, key=lambda period: period.ended)
    at = 0
    highest: dict[int, Period] = {}
    for period in ordered:
        while at < len(by_end) and by_end[at].ended <= period.began:
            over = by_end[at]
            if over.weight not in highest or over.fence > highest[over.weight].fence:
                highest[over.weight] = over
            at += 1
        found.extend(
            (over, period)
            for weight, over in highest.items()
            if weight + period.weight > period.capacity and period.fence <= over.fence and over is not period
        )
    return found


def repeated(periods: Iterable[Period]) -> list[tuple[Period, Period]]:
    """Find pairs of one name's periods that do not fit together and have the same fence, at any times."""
    found: list[tuple[Period, Period]] = []
    fences: dict[int, list[Period]] = {}
    for period in sorted(periods):
        others = fences.setdefault(period.fence, [])
        found.extend(
            (other, period)
            for other in others
            if other.weight + period.weight > min(other.capacity, period.capacity)
        )
        others.append(period)
    return found
