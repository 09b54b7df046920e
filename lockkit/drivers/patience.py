"""Repeat a request as long as its failure may be temporary."""

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
"""Seconds that the last try may take at least."""


def patiently(
    call: Callable[[float], T],
    clock: Clock,
    patience: float,
    met: Callable[[Refused | Unknown], object] = lambda _trouble: None,
    least: float = _LEAST,
) -> T:
    """Make an idempotent call, and repeat it as long as its failure may be temporary and time is left.

    Args:
        call: The call to make; its argument is the seconds that it may take.
        clock: The clock for pauses and limits.
        patience: Seconds that all tries together may take.
        met: Called with each failure after which the call is tried again.
        least: Seconds that a try may take at least, even if less time is left.

    Raises:
        Refused, Unknown: The last failure.
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
