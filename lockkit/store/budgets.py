"""Budgets of calls: the seconds that are left until an end on ``time.monotonic()``."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

__all__ = ["left", "shares"]

T = TypeVar("T")

_MOMENT = 0.05


def left(end: float) -> float:
    """Seconds until an end, but at least 50 ms, so that a step in progress may still learn its result."""
    return max(end - time.monotonic(), _MOMENT)


def shares(
    things: Sequence[T], end: float, *, least: float = _MOMENT, spare: int = 0
) -> Iterator[tuple[T, float]]:
    """Things to be done one after the other, each with the end of its share of the time that is left then.

    Args:
        things: The things.
        end: When to be done with all of them, on ``time.monotonic()``.
        least: Seconds that each gets in any case.
        spare: How many more shares to leave for later.
    """
    for at, thing in enumerate(things):
        now = time.monotonic()
        yield thing, now + max((end - now) / (len(things) - at + spare), least)
