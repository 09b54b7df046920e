"""Cancellation at the k-th suspension of a coroutine, for every k."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Callable, Collection, Coroutine, Generator
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

__all__ = ["KINDS", "Cancelled", "cancel_at"]

Kind: TypeAlias = Callable[
    [Callable[[Callable[[], object]], Coroutine[Any, Any, object]]], Coroutine[Any, Any, "Cancelled"]
]


class Cancelled:
    """How a run that was to be cancelled ended.

    Attributes:
        reached: Whether the run came as far as the suspension.
        struck: Whether the task took the cancellation: it was not over yet.
        error: What came out; None if the coroutine returned.
    """

    def __init__(self) -> None:
        self.reached = self.struck = False
        self.error: BaseException | None = None

    @property
    def came_out(self) -> bool:
        """Whether a cancellation that the task took has come out in the end."""
        return not self.struck or isinstance(self.error, asyncio.CancelledError | TimeoutError | _Sibling)


class _Sibling(Exception):
    """The failure of another task of a TaskGroup."""


@types.coroutine
def _counted(
    work: Coroutine[Any, Any, object],
    at: Collection[int],
    strike: Callable[[], object],
    cancelled: Callable[[], object] = lambda: None,
) -> Generator[Any, Any, object]:
    """Run a coroutine, and strike at its k-th suspension. A cancellation that arrives calls ``cancelled``."""
    count, value, error = 0, None, None
    while True:
        try:
            waited_for = work.send(value) if error is None else work.throw(error)
        except StopIteration as stop:
            return stop.value
        if count in at:
            asyncio.get_running_loop().call_soon(strike)
        count += 1
        value = error = None
        try:
            value = yield waited_for
        except BaseException as thrown:
            error = thrown
            if isinstance(thrown, asyncio.CancelledError):
                cancelled()


async def cancel_at(
    work: Callable[[], Coroutine[Any, Any, object]], at: Collection[int], kind: str = "cancel"
) -> Cancelled:
    """Run some work in its own task, and cancel it at its suspensions with these numbers, counted from 0."""
    how = Cancelled()
    loop = asyncio.get_running_loop()
    fails, limit = asyncio.Event(), asyncio.timeout(None)
    if kind == "timeout":

        def strike() -> None:
            how.reached = True
            how.struck = how.struck or not task.done()
            if not limit.expired() and not task.done():
                limit.reschedule(loop.time())

        task = asyncio.create_task(_within(limit, _counted(work(), at, strike)))
    elif kind == "wait_for":
        expire = _Expiry(loop)

        def strike() -> None:
            how.reached = True
            expire()

        def cancelled() -> None:  # the task in which wait_for runs the work may end before it is cancelled
            how.struck = True

        task = asyncio.create_task(expire.within(_counted(work(), at, strike, cancelled)))
    elif kind == "group":

        def strike() -> None:
            how.reached = True
            how.struck = how.struck or not task.done()
            fails.set()

        task = asyncio.create_task(_beside(fails, _counted(work(), at, strike)))
    else:

        def strike() -> None:
            how.reached = True
            how.struck = task.cancel() or how.struck

        task = asyncio.create_task(_alone(_counted(work(), at, strike)))
    try:
        await task
    except (asyncio.CancelledError, Exception) as error:
        how.error = error
    fails.set()
    if kind == "timeout":  # the work may have ended before the limit struck
        how.struck = limit.expired()
    elif kind == "group":
        how.struck = how.error is not None
    return how


KINDS = ("cancel", "timeout", "wait_for", "group")
"""The ways in which a program cancels."""


class _Expiry:
    """The time limit of a ``wait_for``, which expires when this object is called, and not before."""

    LONG = 1e6
    """Seconds, by which the timer of the limit is known."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._expired: Callable[[], object] = lambda: None

    async def within(self, work: Coroutine[Any, Any, object]) -> None:
        call_at = self._loop.call_at

        def noted(
            when: float, callback: Callable[..., object], *args: Any, **more: Any
        ) -> asyncio.TimerHandle:
            timer = call_at(when, callback, *args, **more)
            if when - self._loop.time() > self.LONG / 2:
                self._timer, self._expired = timer, lambda: callback(*args)
            return timer

        self._loop.call_at = noted  # type: ignore[method-assign, assignment]
        try:
            await asyncio.wait_for(work, self.LONG)
        finally:
            self._loop.call_at = call_at  # type: ignore[method-assign]
            self._timer = None

    def __call__(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
            self._expired()


async def _alone(work: Awaitable[object]) -> None:
    await work


async def _within(limit: AbstractAsyncContextManager[object], work: Awaitable[object]) -> None:
    async with limit:
        await work


async def _beside(fails: asyncio.Event, work: Awaitable[object]) -> None:
    async def sibling() -> None:
        await fails.wait()
        raise _Sibling

    try:
        async with asyncio.TaskGroup() as group:
            other = group.create_task(sibling())
            await work
            own = asyncio.current_task()
            assert own is not None
            assert not own.cancelling(), "a cancellation by the group was swallowed"
            other.cancel()
    except* _Sibling:
        raise _Sibling from None
