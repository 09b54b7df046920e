"""A future whose waiting task continues in the turn of the event loop in which the result comes."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextvars import Context
from functools import partial
from typing import Any, Never, TypeVar, cast

__all__ = ["Deliveries", "PromptFuture", "pause"]

T = TypeVar("T")
_AT_A_TIME = 0.001
"""Seconds for which results are delivered without a turn of the loop."""
_GAP = 0.00005
"""Seconds between two deliveries after which the loop has certainly started another turn, or has waited."""
_LOOK = 1.0
"""Seconds between two looks at whether a task goes on: a signal handler may raise in the first."""


class PromptFuture(asyncio.Future[T]):
    """A future that :meth:`deliver` ends at once: its task continues before the call returns.

    A plain future schedules its task for the next turn, which costs the loop a system call and a callback per
    result. It also forgets the task before that is scheduled: a signal handler that raises in between strands
    the task, even for a cancellation. A delivery does not, wherever a handler raises.

    A delivery from a task of the loop schedules the other task for the next turn. Any other end of this
    future (a cancellation, ``set_result``) is that of a plain one; so is a delivery unless one task waits.

    No method that a task calls as it starts to wait, or that a cancellation calls, is overridden here:
    asyncio's are written in C, so no signal handler raises in the middle. Otherwise nothing might call the
    task back: it would never end, nor would a loop that ends its tasks first.

    Args:
        loop: The event loop. All calls are made in its thread.
    """

    __slots__ = ()

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)

    def deliver(self, result: T, error: BaseException | None = None) -> None:
        """End the future with a result or an error; first its task runs to its next wait or end.

        Nothing happens if the future has ended: its task was cancelled, perhaps in this very turn. Make this
        call last: the task may do anything.
        """
        if self.done():
            return
        callbacks = list(self._callbacks or ())  # None if there are none
        task = getattr(callbacks[0][0], "__self__", None) if len(callbacks) == 1 else None
        if not isinstance(task, asyncio.Task):
            self._end(result, error)
            return
        step, context = callbacks[0]
        # The first of its calls starts the step, the others do nothing; no signal handler comes between.
        resume = partial(next, map(context.run, (step,), (self,)))
        runs = asyncio.current_task(self._loop) is not None
        try:
            self.remove_done_callback(step)
            self._end(result, error)
            if runs:
                self._loop.call_soon(resume, self)
            else:
                resume(self)
        except BaseException as struck:
            self.add_done_callback(resume)
            if not self.done():
                self._end(result, error)
            if runs:
                raise
            # uvloop would close the connection for a SystemExit or KeyboardInterrupt: raise it from the loop
            self._loop.call_soon(_raise, struck)

    def fail(self, error: BaseException) -> None:
        """Deliver an error."""
        self.deliver(cast("T", None), error)

    async def within(self: PromptFuture[None], seconds: float) -> None:
        """Wait for the end of this future, at most this long."""
        timers = self.after(seconds)
        try:
            await self
        finally:
            for each in timers:
                each.cancel()

    def after(
        self: PromptFuture[None], seconds: float, context: Context | None = None
    ) -> tuple[asyncio.TimerHandle, asyncio.TimerHandle]:
        """Deliver None after some seconds; return the timers, to be cancelled when the wait is over."""
        deliver, later = self.deliver, self._loop.call_later
        return (
            later(seconds, deliver, None, context=context),
            later(seconds + _LOOK, deliver, None, context=context),
        )

    def _end(self, result: T, error: BaseException | None) -> None:
        if error is None:
            self.set_result(result)
        else:
            self.set_exception(error)


class Deliveries:
    """The deliveries on one event loop: after a millisecond of them, the next ones wait for another turn.

    A server that resumes after a pause answers all requests at once, and one that dies fails them all. The
    loop would end all in one turn, and do nothing else until each task had reached its next wait.

    Args:
        loop: The event loop. All calls are made in its thread.
    """

    __slots__ = ("_going_on", "_last", "_later", "_loop", "_since", "_went")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._later: deque[tuple[PromptFuture[Any], Any, Exception | None]] = deque()
        self._since = self._last = self._went = 0.0
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
        """Deliver an error in another turn of the loop. This runs no task, so the caller may continue."""
        self._put_off(future, None, error)

    def _put_off(self, future: PromptFuture[T], result: T | None, error: Exception | None) -> None:
        self._later.append((future, result, error))
        if not self._going_on:
            self._loop.call_soon(self._go_on)
            self._loop.call_later(_LOOK, self._look)
            self._going_on = True  # last: a signal handler may raise before, and the next call starts then

    def _go_on(self) -> None:
        """Deliver what was left, for a millisecond."""
        if not self._later:
            self._going_on = False
            return
        self._loop.call_soon(self._go_on)  # first: whatever strikes here, the others get their results
        self._went = time.monotonic()
        until = self._went + _AT_A_TIME
        while self._later:
            future, result, error = self._later[0]
            future.deliver(result, error)
            self._later.popleft()  # last: a delivery that a signal handler cut short is made again
            if time.monotonic() >= until:
                break

    def _look(self) -> None:
        """Go on with what was left, where a signal handler has ended the callback that should have."""
        if self._later:
            self._loop.call_later(_LOOK, self._look)
            if time.monotonic() - self._went > _LOOK:
                self._go_on()
        elif self._going_on:
            self._going_on = False


async def pause(loop: asyncio.AbstractEventLoop, seconds: float) -> None:
    """Wait, as :func:`asyncio.sleep`, which a signal handler that raises can strand."""
    future: PromptFuture[None] = PromptFuture(loop)
    await future.within(seconds)


def _raise(error: BaseException) -> Never:
    raise error
