"""One answer for many who ask at the same time: the store is asked once for all of them, and the less often the longer it takes to answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from lockkit.errors import LockkitError

__all__ = ["Shared"]

T = TypeVar("T")
_SHARE = 4.0
"""An answer that took one second to make counts for four seconds, so that at most a fifth of the time is spent on making answers."""
_LONGEST = 30.0


class Shared(Generic[T]):
    """The last answer of a function that takes time, or its error, for all threads that ask.

    Args:
        make: The function. While it runs, the others wait for its answer.
        seconds: How long an answer counts at least.
    """

    def __init__(self, make: Callable[[], T], seconds: float) -> None:
        self._make = make
        self._seconds = seconds
        self._mutex = threading.Lock()
        self._until = 0.0
        self._forgotten = 0
        self._answer: T | LockkitError | None = None

    def get(self) -> T:
        """The answer.

        Raises:
            LockkitError: The function raised it, now or a moment ago.
        """
        with self._mutex:
            begun = time.monotonic()
            if self._answer is None or begun >= self._until:
                forgotten = self._forgotten
                try:
                    self._answer = self._make()
                except LockkitError as error:
                    self._answer = error
                ended = time.monotonic()
                counts = max(self._seconds, min(_SHARE * (ended - begun), _LONGEST))
                self._until = ended + counts if forgotten == self._forgotten else 0.0
            answer = self._answer
        if isinstance(answer, LockkitError):
            raise answer
        return answer

    def forget(self) -> None:
        """Have the next one who asks get a new answer, because something was changed."""
        self._forgotten += 1
        self._until = 0.0
