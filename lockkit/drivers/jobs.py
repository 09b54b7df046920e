"""A call that is made for another thread, and its result."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any, Generic, TypeVar

__all__ = ["Job"]

T = TypeVar("T")
_log = logging.getLogger("lockkit")
_BEGUN, _CANCELLED = "begun", "cancelled"


class Job(Generic[T]):
    """A call that a thread makes for others, with the non-waiting methods of ``concurrent.futures.Future``.

    Not that class, which is Python code around a ``threading.Condition``: a signal handler that raises in it
    can leave the lock taken for good, and every later call would hang. Here each step is one call into C.
    """

    __slots__ = ("_callbacks", "_error", "_fate", "_over", "_result")

    def __init__(self) -> None:
        self._fate: dict[None, str] = {}
        self._callbacks: list[Callable[[Job[T]], object]] = []
        self._result: Any = None
        self._error: BaseException | None = None
        self._over = False

    def begin(self) -> bool:
        """Start the call, in the thread that makes it; False if it was cancelled."""
        return self._fate.setdefault(None, _BEGUN) is _BEGUN

    def end(self, result: T | None, error: BaseException | None = None) -> None:
        """Keep the result, or the error, of a call that was started."""
        self._result, self._error = result, error
        self._over = True
        self._call_back()

    def cancel(self) -> bool:
        """Prevent the call; False if it was started."""
        cancelled = self._fate.setdefault(None, _CANCELLED) is _CANCELLED
        if cancelled:
            self._call_back()
        return cancelled

    def cancelled(self) -> bool:
        """Whether the call will not be made."""
        return self._fate.get(None) is _CANCELLED

    def done(self) -> bool:
        """Whether there is a result or an error, or the call was cancelled."""
        return self._over or self.cancelled()

    def result(self) -> T:
        """The result of a job that is done.

        Raises:
            CancelledError: The call was cancelled.
            BaseException: The error of the call.
        """
        error = self.exception()
        if error is None:
            return self._result  # type: ignore[no-any-return]
        try:
            raise error
        finally:  # its traceback refers to this frame
            del error, self

    def exception(self) -> BaseException | None:
        """The error of a job that is done.

        Raises:
            CancelledError: The call was cancelled.
        """
        if self.cancelled():
            raise CancelledError
        return self._error

    def add_done_callback(self, callback: Callable[[Job[T]], object]) -> None:
        """Have the thread that ends the job call a function; call it at once if the job is done already."""
        self._callbacks.append(callback)
        if self.done():
            self._call_back()

    def _call_back(self) -> None:
        """Call the functions that were not called yet; two threads may both do so."""
        while True:
            try:
                callback = self._callbacks.pop(0)
            except IndexError:
                return
            try:
                callback(self)
            except Exception:
                _log.exception("%r failed", callback)
