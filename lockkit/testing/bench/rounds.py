"""Rounds: every contender runs for a short time in every round, so that other load on the machine affects all of them."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from time import perf_counter
from typing import TypeVar

__all__ = ["interleaved", "per_call", "percentile", "ratio"]

T = TypeVar("T")


def per_call(call: Callable[[], object], count: int) -> float:
    """The seconds of one call: the median of ``count`` calls, so that a call that lost its processor for a while does not matter."""
    taken = []
    for _ in range(count):
        began = perf_counter()
        call()
        taken.append(perf_counter() - began)
    return median(taken)


def interleaved(measures: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Run every measure once per round, each round in another order. A first round, for warming up, is discarded."""
    names = list(measures)
    taken: dict[str, list[T]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        gc.collect()
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            value = measures[name]()
            if turn:
                taken[name].append(value)
    return taken


def ratio(values: Sequence[float], floor: Sequence[float]) -> float:
    """The median of the ratios to the floor, round by round."""
    return median(value / base for value, base in zip(values, floor, strict=True))


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` (0 to 1) of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
