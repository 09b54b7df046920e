"""Budgets: what is left until an end."""

from __future__ import annotations

import time

__all__ = ["left"]

_MOMENT = 0.05


def left(end: float) -> float:
    """Seconds until ``time.monotonic()`` is at ``end``; a moment, if it is already: what has begun may find out."""
    return max(end - time.monotonic(), _MOMENT)
