"""The check of a history of holds: periods in which holders were certain to hold must not overlap, and fences must rise.

A holder is *certain* to hold from the moment when it has read its grant until it sends the release or its lease is no longer valid. At
every moment the certain periods of one name must fit into its capacity. All times come from one clock (CLOCK_BOOTTIME) of one machine.
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
        began: The beginning, after the grant was read, in seconds of CLOCK_BOOTTIME.
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
    """Find the sets of periods of one name that overlap and exceed its capacity. O(n log n), plus the size of the result."""
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
    """Find pairs of periods of one name where the later one began after the end of the earlier one, but its fence is not higher.

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
    """Find pairs of periods of one name that do not fit together and have the same fence, whatever their times say."""
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
