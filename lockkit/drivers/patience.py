"""Repeat a request as long as its failure may be temporary."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TypeVar

from lockkit.lib.clock import Clock
from lockkit.store.spi import Refused, Unknown

__all__ = ["Tries", "patiently"]

T = TypeVar("T")
_FIRST, _LONGEST = 0.02, 0.5
_LEAST = 0.05
"""Seconds that the last try may take at least."""


class Tries:
    """The tries of one call: how long each may take, and how long to pause after each failure.

    Args:
        clock: The clock for pauses and limits.
        patience: Seconds that all tries together may take.
        met: Called with each failure after which the call is tried again.
        least: Seconds that a try may take at least, even if less time is left.
        most: Seconds that a try may take at most.
        endless: Whether to try for ever as long as the store is only busy.
    """

    def __init__(
        self,
        clock: Clock,
        patience: float,
        met: Callable[[Refused | Unknown], object] = lambda _trouble: None,
        least: float = _LEAST,
        most: float = math.inf,
        *,
        endless: bool = False,
    ) -> None:
        self._clock = clock
        self._end = clock.now() + patience
        self._met = met
        self._least = least
        self._most = most
        self._endless = endless
        self._wait = _FIRST

    def left(self) -> float:
        """Seconds that the next try may take."""
        return min(max(self._end - self._clock.now(), self._least), self._most)

    def failed(self, trouble: Refused | Unknown) -> float:
        """Seconds to pause before the next try.

        Raises:
            Refused, Unknown: The failure, if it is the last one.
        """
        final = isinstance(trouble, Refused) and not trouble.retry
        wait = self._wait
        goes_on = self._endless and trouble.busy
        if final or (self._clock.now() + wait >= self._end and not goes_on):
            raise trouble
        self._met(trouble)
        self._wait = min(2 * wait, _LONGEST)
        return wait


def patiently(call: Callable[[float], T], tries: Tries) -> T:
    """Make an idempotent call, and repeat it as long as its failure may be temporary and time is left.

    Args:
        call: The call to make; its argument is the seconds that it may take.
        tries: How often and for how long to try.

    Raises:
        Refused, Unknown: The last failure.
    """
    while True:
        try:
            return call(tries.left())
        except (Refused, Unknown) as trouble:
            wait = tries.failed(trouble)
        time.sleep(wait)
