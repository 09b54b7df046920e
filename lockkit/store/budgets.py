"""Budgets of calls: the seconds that are left until an end on ``time.monotonic()``."""

from __future__ import annotations

import time

__all__ = ["left"]

_MOMENT = 0.05


def left(end: float) -> float:
    """Seconds until an end, but at least 50 ms, so that a step which has begun may still learn its result."""
    return max(end - time.monotonic(), _MOMENT)
