"""Holds of several hosts that may have exceeded the capacity together, given the skew of their clocks."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from lockkit.values.history import Period

__all__ = ["crowded"]


def crowded(hosts: Sequence[Iterable[Period]], by: float) -> list[Period]:
    """The periods from whose start more may have been held than fits, on several hosts; O(hosts * n log n).

    Each clock may be wrong by a constant of at most ``by``, either way. So the most that a host may have held
    at a moment is the most that it held within ``by`` of it, and the peaks of all hosts may have coincided.

    Args:
        hosts: The periods of one name, by the clock of their host.
        by: Seconds by which a clock may be wrong.
    """
    if len(hosts) < 2:
        return []
    levels = sorted(
        (began - by, ended + by, level, host, number, period)
        for host, periods in enumerate(hosts)
        for number, (began, ended, level, period) in enumerate(_levels(periods))
    )
    found = []
    standing: list[list[tuple[int, float, int]]] = [[] for _ in hosts]
    """For each host a heap, the highest level first: minus the level, the end, and the capacity."""
    for began, ended, level, host, _, (period, begins) in levels:
        heapq.heappush(standing[host], (-level, ended, period.capacity))
        for heap in standing:
            while heap and heap[0][1] <= began:
                heapq.heappop(heap)
        tops = [heap[0] for heap in standing if heap]
        if begins and len(tops) > 1 and -sum(top[0] for top in tops) > min(top[2] for top in tops):
            found.append(period)
    return found


def _levels(periods: Iterable[Period]) -> Iterator[tuple[float, float, int, tuple[Period, bool]]]:
    """Spans of constant weight on one host: start, end, weight, and the period that began or ended there."""
    changes = [
        change
        for number, each in enumerate(periods)
        for change in ((each.began, True, number, each), (each.ended, False, number, each))
    ]
    # Ends come first: a hold that ends makes room for one that begins at the same moment.
    changes.sort(key=lambda change: (change[0], change[1]))
    level = 0
    for (at, begins, _, period), (until, *_) in pairwise(changes):
        level += period.weight if begins else -period.weight
        if level > 0:
            yield at, until, level, (period, begins)
