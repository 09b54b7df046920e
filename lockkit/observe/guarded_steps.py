"""The check of guarded resources: none may accept a lower fence after a higher one.

A step takes effect between start and answer, so it is certainly later if it starts after another's answer.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence

from lockkit.lib.namedtuples import NamedTuple
from lockkit.observe.past import PastStep

__all__ = ["Overtaken", "overtaken"]


class Overtaken(NamedTuple):
    """A step that a resource accepted although it had accepted a higher fence.

    Attributes:
        higher: The earlier step, with the higher fence.
        stale: The later step, with the lower fence.
        certain: Whether the clocks leave no doubt.
    """

    higher: PastStep
    stale: PastStep
    certain: bool


def overtaken(steps: Iterable[PastStep], skew: float) -> list[Overtaken]:
    """Find the steps that no resource should have accepted. O(n log n), times the number of boots.

    Args:
        steps: The steps at any resources.
        skew: Seconds by which the wall clocks of two hosts may differ.
    """
    resources: dict[tuple[object, str, str], list[PastStep]] = {}
    for step in steps:
        if step.kind != "refused":
            resources.setdefault((step.key, step.name, step.resource), []).append(step)
    found: dict[PastStep, Overtaken] = {}
    for each in resources.values():
        boots: dict[str, list[PastStep]] = {}
        for step in each:
            boots.setdefault(step.owner.boot_id, []).append(step)
        for inside in boots.values():
            for higher, stale in _later(inside, _boottime, 0.0):
                found.setdefault(stale, Overtaken(higher, stale, certain=True))
        if len(boots) > 1:
            for margin in (skew, -skew):
                for higher, stale in _later(each, _wall, margin):
                    if higher.owner.boot_id != stale.owner.boot_id:
                        found.setdefault(stale, Overtaken(higher, stale, certain=margin == skew))
    return list(found.values())


def _later(
    steps: Sequence[PastStep], time: Callable[[PastStep], float], margin: float
) -> Iterator[tuple[PastStep, PastStep]]:
    """Pairs of a step and a later one with a lower fence, one a boot; ``time`` gives an answer's time."""
    ends = [(time(step), number, step) for number, step in enumerate(steps)]
    heapq.heapify(ends)
    highest: dict[str, PastStep] = {}
    for step in sorted(steps, key=lambda each: time(each) - each.lasted):
        while ends and ends[0][0] + margin < time(step) - step.lasted:
            over = heapq.heappop(ends)[2]
            known = highest.get(over.owner.boot_id)
            if known is None or over.fence > known.fence:
                highest[over.owner.boot_id] = over
        yield from ((over, step) for over in highest.values() if over.fence > step.fence)


def _boottime(step: PastStep) -> float:
    return step.boottime


def _wall(step: PastStep) -> float:
    return step.at
