"""Calls that threads make for an event loop, and how a coroutine waits for their results."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import TypeVar

from lockkit.drivers.jobs import Job
from lockkit.errors import BackendUnavailable
from lockkit.lib.prompt_future import PromptFuture
from lockkit.store.spi import Refused

__all__ = ["call_soon", "finished", "result_of"]

T = TypeVar("T")
_LOOK = 1.0
"""Seconds after which a coroutine that waits for a job checks the job itself, in case its wake was lost."""


def call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *args: object) -> None:
    """Call something on a loop, from any thread; nothing happens once the loop is closed."""
    try:
        loop.call_soon_threadsafe(callback, *args)
    except RuntimeError:
        if not loop.is_closed():
            raise


async def result_of(
    job: Job[T],
    loop: asyncio.AbstractEventLoop,
    patience: float | None,
    late: str = "the store is slow: no thread of this client was free to ask it",
    *,
    shared: bool = False,
) -> T:
    """The result of a job. A cancelled caller does not wait for it.

    Args:
        job: The job.
        loop: The running loop.
        patience: Seconds after which a job that was not started is cancelled; None to wait for its turn.
        late: What to say if it is late.
        shared: Whether others wait for the job too. Then the job is not cancelled when the time is up.

    Raises:
        Refused: The job did not start in time; a shared one did not end in time.
    """
    future: PromptFuture[T] = PromptFuture(loop)
    timer: asyncio.TimerHandle
    until = math.inf if patience is None else loop.time() + patience

    def look() -> None:
        """Take the result if an interrupted callback did not take it; or give up in time."""
        nonlocal timer
        left = until - loop.time()
        timer = loop.call_later(min(left, _LOOK) if left > 0 else _LOOK, look)
        if job.done():
            _copy(job, future)
        elif left <= 0 and not future.done() and (shared or job.cancel()):
            future.fail(Refused(BackendUnavailable(late)))

    timer = loop.call_later(_LOOK if patience is None else min(patience, _LOOK), look)
    job.add_done_callback(lambda _: call_soon(loop, _copy, job, future))
    try:
        return await future
    finally:
        timer.cancel()


async def finished(job: Job[T], loop: asyncio.AbstractEventLoop, cuts: list[asyncio.CancelledError]) -> T:
    """The result of a job, which is waited for however often the caller is cancelled.

    Args:
        job: The job.
        loop: The running loop.
        cuts: A list to which the cancellations are added.
    """
    while True:
        try:
            return await result_of(job, loop, None)
        except asyncio.CancelledError as cut:
            cuts.append(cut)
            if job.done():  # a task that is cancelled at every turn of the loop would never see the result
                return job.result()


def _copy(job: Job[T], future: PromptFuture[T]) -> None:
    if job.cancelled():
        return
    error = job.exception()
    if error is None:
        future.deliver(job.result())
    else:
        future.fail(error)
