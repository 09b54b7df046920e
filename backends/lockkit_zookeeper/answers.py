"""Answers of the servers, and waits for them, that the exception of a signal handler cannot leave half done.

kazoo's own answers and ``threading.Event`` are Python code around a lock. A signal handler that raises
between two of their bytecodes (Ctrl-C, Celery's SoftTimeLimitExceeded) can leave that lock taken. kazoo's
thread would then wait for it for ever, and with it the session and all its claims.
"""

from __future__ import annotations

import functools
import queue
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from kazoo.handlers.threading import KazooTimeoutError

from lockkit.lib.bell import Bell

__all__ = ["Answer", "Calls", "Crowd"]

_MISSING: Any = object()


class Calls(queue.SimpleQueue):  # type: ignore[type-arg]  # 3.11 cannot subclass it with a type argument
    """A queue of calls for one of kazoo's threads."""

    def task_done(self) -> None:
        """Do nothing: no thread waits for an empty queue."""


class Answer:
    """The answer to one request, for one waiting thread. kazoo sets it.

    Attributes:
        value: The result of the request.
        exception: The error; None if there is none. Has no meaning until the answer is :meth:`ready`.
    """

    __slots__ = ("_bell", "_callbacks", "_handler", "exception", "value")

    def __init__(self, handler: Any) -> None:
        self.value: Any = None
        self.exception: Any = _MISSING
        self._handler = handler
        self._bell = Bell()
        self._callbacks: deque[Callable[[Answer], object]] = deque()

    def ready(self) -> bool:
        """Whether the answer has come."""
        return self.exception is not _MISSING

    def successful(self) -> bool:
        """Whether the answer has come and is no error."""
        return self.exception is None

    def set(self, value: Any = None) -> None:
        """Take the result, from kazoo's thread."""
        self.value = value
        self._finish(None)

    def set_exception(self, exception: BaseException) -> None:
        """Take the error, from kazoo's thread; from the caller's if there is no connection."""
        self._finish(exception)

    def _finish(self, exception: BaseException | None) -> None:
        self.exception = exception
        self._bell.ring()
        self._call()

    def wait(self, timeout: float) -> bool:
        """Wait until the answer has come, for so many seconds; return whether it has."""
        end = time.monotonic() + timeout
        while not self.ready() and (left := end - time.monotonic()) > 0:
            self._bell.wait(left)
        return self.ready()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:  # noqa: FBT001, FBT002 - kazoo's names
        """Return the result, or raise the error.

        Raises:
            KazooTimeoutError: The answer did not come in time.
        """
        if block and timeout is not None:
            self.wait(timeout)
        if not self.ready():
            raise KazooTimeoutError
        if self.exception is not None:
            raise self.exception
        return self.value

    def rawlink(self, callback: Callable[[Answer], object]) -> None:
        """Call this, from one of kazoo's threads, when the answer has come."""
        self._callbacks.append(callback)
        if self.ready():
            self._call()

    def _call(self) -> None:
        # Two threads may be here. The one that takes a callback out calls it, so each is called once.
        callbacks = self._callbacks
        while callbacks:
            try:
                callback = callbacks.popleft()
            except IndexError:
                return
            if self._handler.running:
                self._handler.completion_queue.put(functools.partial(callback, self))
            else:
                callback(self)


class Crowd:
    """Threads that wait for a condition."""

    __slots__ = ("_bells",)

    def __init__(self) -> None:
        self._bells: set[Bell] = set()

    def wake(self) -> None:
        """Have all threads check their conditions."""
        for bell in [*self._bells]:
            bell.ring()

    def wait(self, true: Callable[[], bool], seconds: float) -> bool:
        """Wait until ``true()``, for so many seconds; return whether it is."""
        if true():
            return True
        end = time.monotonic() + seconds
        bell = Bell()
        self._bells.add(bell)
        try:
            while not true():
                left = end - time.monotonic()
                if left <= 0:
                    return False
                bell.wait(left)
            return True
        finally:
            self._bells.discard(bell)
