"""Budgets: the seconds that are left until an end on ``time.monotonic()``."""

from __future__ import annotations

import time

__all__ = ["left"]

_MOMENT = 0.05


def left(end: float) -> float:
    """Seconds until an end; a moment if it has passed, because a step that has begun may still find out what became of it."""
    return max(end - time.monotonic(), _MOMENT)
