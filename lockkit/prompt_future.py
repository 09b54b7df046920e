"""A future whose waiting task goes on in the turn of the event loop in which the result comes."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any, Never, Self, TypeVar

__all__ = ["Deliveries", "PromptFuture"]

T = TypeVar("T")
_AT_A_TIME = 0.001
"""Seconds for which results are delivered without a turn of the loop."""
_GAP = 0.00005
"""Seconds between two deliveries after which the loop has certainly begun another turn, or has waited."""


class PromptFuture(asyncio.Future[T]):
    """A future that :meth:`deliver` ends without a further turn of the loop: the task that awaits it goes on before the call returns.

    A plain future schedules its task for the next turn, which costs the loop a system call and a callback for each result. Any
    other end of this future (an error, a cancellation, ``set_result``) schedules the task as usual, since that may come from another task.
    So does a delivery if something beside the task was called back first, or while a task of the loop is running.

    Args:
        loop: The event loop. All calls are made in its thread.
    """

    __slots__ = ("_waiter",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._waiter: tuple[Callable[..., object], Context] | bool = False
        """The step of the task that waits, and its context; True if it is called back as on any future."""

    def add_done_callback(
        self, callback: Callable[[Self], object], /, *, context: Context | None = None
    ) -> None:
        """See :meth:`asyncio.Future.add_done_callback`. A task passes its context, and never removes the callback."""
        if context is not None and self._waiter is False and not self.done():
            self._waiter = callback, context
        else:
            self._waiter = self._waiter or True
            super().add_done_callback(callback, context=context)

    def deliver(self, result: T, error: Exception | None = None) -> None:
        """End the future with a result, or an error. The waiting task runs to its next wait, or to its end, before this returns.

        Nothing happens if the future has ended: its task was cancelled, perhaps in this very turn. Make this call last: the task may do
        anything.
        """
        if self.done():
            return
        waiter = self._waiter
        if type(waiter) is not tuple or asyncio.current_task(self._loop) is not None:
            self._end(result, error)
            self._schedule()
            return
        self._waiter = True
        self._end(result, error)
        step, context = waiter
        try:
            context.run(step, self)
        except BaseException as struck:  # uvloop would close the connection for a SystemExit or KeyboardInterrupt, so raise it from the loop
            self._loop.call_soon(_raise, struck)

    def cancel(self, msg: Any = None) -> bool:
        """See :meth:`asyncio.Future.cancel`."""
        if self.done():
            return False
        self._schedule()
        return super().cancel(msg)

    def set_result(self, result: T, /) -> None:
        """See :meth:`asyncio.Future.set_result`."""
        super().set_result(result)
        self._schedule()

    def set_exception(self, exception: type | BaseException, /) -> None:
        """See :meth:`asyncio.Future.set_exception`."""
        super().set_exception(exception)
        self._schedule()

    def _end(self, result: T, error: Exception | None) -> None:
        if error is None:
            super().set_result(result)
        else:
            super().set_exception(error)

    def _schedule(self) -> None:
        waiter, self._waiter = self._waiter, True
        if type(waiter) is tuple:
            self._loop.call_soon(waiter[0], self, context=waiter[1])


class Deliveries:
    """The deliveries on one event loop: after a millisecond of them, the next ones wait for another turn of the loop.

    A server that goes on after a pause answers all requests at once, and one that dies fails them all at once. The loop would end all
    requests in one turn, and would do nothing else until each task had gone on to its next wait.

    Args:
        loop: The event loop. All calls are made in its thread.
    """

    __slots__ = ("_going_on", "_last", "_later", "_loop", "_since")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._later: deque[tuple[PromptFuture[Any], Any, Exception | None]] = deque()
        self._since = self._last = 0.0
        self._going_on = False

    def deliver(self, future: PromptFuture[T], result: T, error: Exception | None = None) -> None:
        """Deliver a result, or an error, now or in another turn; see :meth:`PromptFuture.deliver`."""
        now = time.monotonic()
        if now - self._last > _GAP:
            self._since = now
        if self._later or now - self._since > _AT_A_TIME:
            self._put_off(future, result, error)
            return
        future.deliver(result, error)
        self._last = time.monotonic()

    def fail(self, future: PromptFuture[Any], error: Exception) -> None:
        """Deliver an error in another turn of the loop. Unlike :meth:`deliver` this runs no task, so the caller may go on."""
        self._put_off(future, None, error)

    def _put_off(self, future: PromptFuture[T], result: T | None, error: Exception | None) -> None:
        self._later.append((future, result, error))
        if not self._going_on:
            self._going_on = True
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Deliver what was left, for a millisecond."""
        if not self._later:
            self._going_on = False
            return
        self._loop.call_soon(self._go_on)  # first: whatever strikes here, the others get their results
        until = time.monotonic() + _AT_A_TIME
        while self._later:
            future, result, error = self._later.popleft()
            future.deliver(result, error)
            if time.monotonic() >= until:
                break


def _raise(error: BaseException) -> Never:
    raise error
