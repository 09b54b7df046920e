"""A future whose waiting task continues in the turn of the event loop in which the result comes."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any, Never, TypeVar

__all__ = ["Deliveries", "PromptFuture"]

T = TypeVar("T")
_AT_A_TIME = 0.001
"""Seconds for which results are delivered without a turn of the loop."""
_GAP = 0.00005
"""Seconds between two deliveries after which the loop has certainly started another turn, or has waited."""
_LOOK = 1.0
"""Seconds between two looks at whether the loop continues the deliveries."""


class PromptFuture(asyncio.Future[T]):
    """A future that :meth:`deliver` ends at once: its task continues before the call returns.

    A plain future schedules its task for the next turn, which costs the loop a system call and a callback per
    result. Any other end of this future (an error, a cancellation, ``set_result``) does so too, as it may
    come from another task; so does a delivery if other callbacks wait, or a task of the loop is running.

    No method that a task calls as it starts to wait, or that a cancellation calls, is overridden here:
    asyncio's are written in C, so no signal handler raises in the middle. Otherwise nothing might call the
    task back: it would never end, nor would a loop that ends its tasks first.

    Args:
        loop: The event loop. All calls are made in its thread.
    """

    __slots__ = ()

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)

    def deliver(self, result: T, error: Exception | None = None) -> None:
        """End the future with a result or an error; first its task runs to its next wait or end.

        Nothing happens if the future has ended: its task was cancelled, perhaps in this very turn. Make this
        call last: the task may do anything.
        """
        if self.done():
            return
        callbacks = list(self._callbacks or ())  # None if there are none
        task = getattr(callbacks[0][0], "__self__", None) if len(callbacks) == 1 else None
        if not isinstance(task, asyncio.Task) or asyncio.current_task(self._loop) is not None:
            self._end(result, error)
            return
        step, context = callbacks[0]
        left = [step]
        try:
            self.remove_done_callback(step)
            self._end(result, error)
            # One call takes the step from the list and starts it, so that no signal handler comes between.
            next(map(context.run, iter(left.pop, None), (self,)))
        except BaseException as struck:
            if left:  # a signal handler was faster: the step starts in another turn
                self.add_done_callback(step, context=context)
                if not self.done():
                    self._end(result, error)
            # uvloop would close the connection for a SystemExit or KeyboardInterrupt: raise it from the loop
            self._loop.call_soon(_raise, struck)

    def _end(self, result: T, error: Exception | None) -> None:
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


def _raise(error: BaseException) -> Never:
    raise error
