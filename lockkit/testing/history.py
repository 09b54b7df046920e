"""What really happened: holds as their holders saw them, checked for overlaps and for fences that do not rise.

A hold is *certain* from when its grant was read to just before its release was asked for, or to when it stopped being
valid. Certain holds of a name must fit into its capacity at every moment, by one clock of one machine (CLOCK_BOOTTIME).
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Hold", "falling", "overlaps"]


@dataclass(frozen=True, slots=True, order=True)
class Hold:
    """One certain hold.

    Attributes:
        began: CLOCK_BOOTTIME seconds, after the grant was read.
        ended: Before the release was asked for.
        who: For the report.
    """

    began: float
    ended: float
    fence: int
    who: str = ""
    weight: int = 1
    capacity: int = 1


def overlaps(holds: Iterable[Hold]) -> list[tuple[Hold, ...]]:
    """Every set of holds of one name that stood together and did not fit. O(n log n) but for what it finds."""
    found: list[tuple[Hold, ...]] = []
    standing: list[tuple[float, int, Hold]] = []
    count = itertools.count()
    weight = 0
    for hold in sorted(holds):
        while standing and standing[0][0] <= hold.began:
            weight -= heapq.heappop(standing)[2].weight
        heapq.heappush(standing, (hold.ended, next(count), hold))
        weight += hold.weight
        if weight > min(each.capacity for _, _, each in standing):
            found.append(tuple(each for _, _, each in sorted(standing)))
    return found


def falling(holds: Iterable[Hold]) -> list[tuple[Hold, Hold]]:
    """Pairs of holds where the later one, begun after the earlier had ended, has no larger fence.

    Of two that fit together (readers, permits) each may answer its grant as late as it likes, so they say nothing.
    """
    found: list[tuple[Hold, Hold]] = []
    ordered = sorted(holds)
    by_end = sorted(ordered, key=lambda hold: hold.ended)
    at = 0
    highest: dict[int, Hold] = {}
    for hold in ordered:
        while at < len(by_end) and by_end[at].ended <= hold.began:
            over = by_end[at]
            if over.weight not in highest or over.fence > highest[over.weight].fence:
                highest[over.weight] = over
            at += 1
        found.extend(
            (over, hold)
            for weight, over in highest.items()
            if weight + hold.weight > hold.capacity and hold.fence <= over.fence and over is not hold
        )
    return found
