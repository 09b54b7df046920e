"""Rounds: every contender runs in each of them, so that other load on the machine affects all contenders."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from statistics import median
from time import perf_counter
from typing import TypeVar

__all__ = ["interleaved", "looped", "orders", "ratio", "timed"]

T = TypeVar("T")


def timed(call: Callable[[], object]) -> float:
    """The seconds of one call."""
    began = perf_counter()
    call()
    return perf_counter() - began


def orders(names: Iterable[str], rounds: int) -> Iterator[list[str]]:
    """The order of each round: each name comes first in turn."""
    order = list(names)
    for _ in range(rounds):
        yield order
        order = [*order[1:], order[0]]


def interleaved(measures: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Run every measure once per round, each round in another order. A first round is discarded."""
    taken: dict[str, list[T]] = {name: [] for name in measures}
    for order in orders(measures, rounds + 1):
        gc.collect()
        for name in order:
            taken[name].append(measures[name]())
    return {name: values[1:] for name, values in taken.items()}


def looped(measures: Mapping[str, Callable[[], float]], *, quick: bool) -> dict[str, list[float]]:
    """The same for microseconds: each value is the median of many, so that no lost processor matters."""
    rounds, count = (7, 60) if quick else (41, 200)

    def middle(measure: Callable[[], float]) -> float:
        return median([measure() for _ in range(count)])

    return interleaved({name: partial(middle, measure) for name, measure in measures.items()}, rounds)


def ratio(values: Sequence[float], floor: Sequence[float]) -> float:
    """The median of the ratios to the floor, round by round."""
    return median(value / base for value, base in zip(values, floor, strict=True))
