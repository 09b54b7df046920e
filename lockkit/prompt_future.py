"""A future whose waiting task goes on in the turn of the event loop in which the result comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any, Never, Self, TypeVar

__all__ = ["PromptFuture"]

T = TypeVar("T")


class PromptFuture(asyncio.Future[T]):
    """A future that :meth:`deliver` ends without a further turn of the loop: the task that awaits it goes on before the call returns.

    A plain future schedules its task for the next turn, which costs the loop a system call and a callback for each result. Whatever
    else ends this future (an error, a cancellation, ``set_result``) schedules the task as usual, since that may come from another task.
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

    def deliver(self, result: T) -> None:
        """End the future with a result. The waiting task runs to its next wait, or to its end, before this returns.

        Nothing happens if the future has ended: its task was cancelled, perhaps in this very turn. Make this call last: the task may do
        anything.
        """
        if self.done():
            return
        waiter = self._waiter
        if type(waiter) is not tuple or asyncio.current_task(self._loop) is not None:
            self.set_result(result)
            return
        self._waiter = True
        super().set_result(result)
        step, context = waiter
        try:
            context.run(step, self)
        except BaseException as error:  # SystemExit or KeyboardInterrupt, which a transport of uvloop would take for a failure of its own
            self._loop.call_soon(_raise, error)

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

    def _schedule(self) -> None:
        waiter, self._waiter = self._waiter, True
        if type(waiter) is tuple:
            self._loop.call_soon(waiter[0], self, context=waiter[1])


def _raise(error: BaseException) -> Never:
    raise error
