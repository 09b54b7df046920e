"""One answer for all who ask at the same time: the store is asked once, less often if it is slow."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from lockkit.errors import LockkitError

__all__ = ["Shared"]

T = TypeVar("T")
_SHARE = 4.0
"""An answer that took one second counts for four, so that a fifth of the time at most goes into answers."""
_LONGEST = 30.0


class Shared(Generic[T]):
    """The last answer of a function that takes time, or its error, for all threads that ask.

    Args:
        make: The function. While it runs, the others wait for its answer.
        seconds: How long an answer counts at least.
        patience: Seconds until the previous answer is given, if the last call succeeded and nothing changed.
    """

    def __init__(self, make: Callable[[], T], seconds: float, patience: float | None = None) -> None:
        self._make = make
        self._seconds = seconds
        self._patience = patience
        self._before: tuple[()] | tuple[T] = ()
        self._mutex = threading.Lock()
        self._until = 0.0
        self._forgotten = 0
        self._answer: T | LockkitError | None = None

    def get(self) -> T:
        """The answer.

        Raises:
            LockkitError: The function raised it, now or a moment ago.
        """
        before = self._before if self._patience is not None else ()
        if not before or self._patience is None:
            with self._mutex:
                self._renew()
        elif time.monotonic() >= self._until:
            if not self._mutex.acquire(timeout=self._patience):
                return before[0]
            renewing = threading.Thread(
                target=self._renew_and_release, name="lockkit-server-look", daemon=True
            )
            try:
                renewing.start()
            except RuntimeError:  # no more threads
                self._mutex.release()
                return before[0]
            renewing.join(self._patience)
            if renewing.is_alive():
                return before[0]
        answer = self._answer
        assert answer is not None
        if isinstance(answer, LockkitError):
            raise answer
        return answer

    def forget(self) -> None:
        """Have the next one who asks get a new answer, because something was changed."""
        self._forgotten += 1
        self._until = 0.0
        self._before = ()

    def _renew_and_release(self) -> None:
        try:
            self._renew()
        finally:
            self._mutex.release()

    def _renew(self) -> None:
        """Make the answer anew if it does not count any more. The caller has the mutex."""
        begun = time.monotonic()
        if self._answer is not None and begun < self._until:
            return
        forgotten = self._forgotten
        try:
            self._answer = answer = self._make()
            self._before = (answer,) if forgotten == self._forgotten else ()
        except LockkitError as error:
            self._answer, self._before = error, ()
        ended = time.monotonic()
        counts = max(self._seconds, min(_SHARE * (ended - begun), _LONGEST))
        self._until = ended + counts if forgotten == self._forgotten else 0.0
