"""Asking again while the trouble may pass."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from lockkit.clock import Clock
from lockkit.store.spi import Refused, Unknown

__all__ = ["patiently"]

T = TypeVar("T")
_FIRST, _LONGEST = 0.02, 0.5
_LEAST = 0.05
"""Seconds that the last try may take."""


def patiently(
    call: Callable[[float], T],
    clock: Clock,
    patience: float,
    met: Callable[[Refused | Unknown], object] = lambda _trouble: None,
    least: float = _LEAST,
) -> T:
    """Do something idempotent, again and again while the trouble may pass; at least once.

    Args:
        call: The call to make; gets the seconds that it may take.
        clock: CLOCK_BOOTTIME seconds.
        patience: Seconds that all of it may take.
        met: Told of a trouble after which it is tried again.
        least: Seconds that a try may take even where less is left.

    Raises:
        Refused, Unknown: The last trouble.
    """
    end = clock.now() + patience
    wait = _FIRST
    while True:
        try:
            return call(max(end - clock.now(), least))
        except (Refused, Unknown) as trouble:
            final = isinstance(trouble, Refused) and not trouble.retry
            if final or clock.now() + wait >= end:
                raise
            met(trouble)
        time.sleep(wait)
        wait = min(2 * wait, _LONGEST)
