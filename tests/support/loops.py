"""Event loops for tests: their kinds, a performer of exchanges, cancellation at suspensions, leftovers."""

from __future__ import annotations

import asyncio
import os
import socket
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Literal, TypeAlias, TypeVar
from unittest import mock

from lockkit.lib.prompt_future import PromptFuture
from lockkit.store.connections_aio import LoopConnection
from lockkit.store.performing_aio import OnLoop
from lockkit.store.spi import Exchanges

__all__ = ["HOW", "How", "cancelling", "descriptors", "loops", "run_on"]

T = TypeVar("T")

How: TypeAlias = Literal["at once", "as the answer is read", "as it resumes"]
HOW: tuple[How, ...] = ("at once", "as the answer is read", "as it resumes")
"""When to cancel: as soon as the task is suspended; in the turn of the loop that reads the answer, just
before; or when the awaited result is there and the task has not run yet. As the task resumes with the answer,
the third kind has something beside the task called back first."""


def loops() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The kinds of event loop: asyncio's, and uvloop's where that is installed."""
    kinds: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    try:
        import uvloop
    except ImportError:
        return kinds
    return {**kinds, "uvloop": uvloop.new_event_loop}


def descriptors(*ports: int) -> set[str]:
    """The connected internet sockets of this process, to these ports or to any: descriptor and target."""
    found = set()
    for each in os.listdir("/proc/self/fd"):  # noqa: PTH208 - the names are numbers
        try:
            target = os.readlink(f"/proc/self/fd/{each}")  # noqa: PTH115
            if not target.startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(each))) as plug:
                if plug.family != socket.AF_UNIX and (plug.getpeername()[1] in ports or not ports):
                    found.add(f"{each} {target}")
        except OSError:  # closed meanwhile, or not connected
            continue
    return found


def run_on(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
    exchanges: Exchanges,
    work: Callable[[OnLoop], Awaitable[T]],
    **options: Any,
) -> T:
    """Run a coroutine function with a performer on its own loop, which may leave no task or unseen error."""
    unseen: list[dict[str, Any]] = []

    def noting(_: asyncio.AbstractEventLoop, told: dict[str, Any]) -> None:
        # Not of TLS of uvloop, which is at a loss when it is aborted.
        if isinstance(told.get("protocol"), LoopConnection):
            unseen.append(told)

    async def main() -> T:
        asyncio.get_running_loop().set_exception_handler(noting)
        performer = OnLoop(exchanges, "here", **options)
        try:
            return await work(performer)
        finally:
            await performer.close()
            assert asyncio.all_tasks() == {asyncio.current_task()}, "a task is left"
            assert unseen == [], "an error of a connection that nobody handled"

    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(main())


async def cancelling(
    work: Coroutine[Any, Any, T], *at: int, how: How = "at once"
) -> tuple[T | asyncio.CancelledError, int]:
    """Run a coroutine in a task of its own, and cancel that task at these suspensions, counted from 1.

    Returns:
        The result, or the CancelledError that came out, and how many suspensions there were.
    """
    seen = 0
    awaited: dict[object, asyncio.Task[Any]] = {}
    plain = PromptFuture.deliver

    def deliver(future: PromptFuture[Any], *outcome: Any) -> None:
        # A task that waits for a connection which another one gives back goes on in the loop's next turn.
        later = asyncio.current_task() is not None
        if later:
            plain(future, *outcome)
        if task := awaited.pop(future, None):
            assert task.cancel()
        if not later:
            plain(future, *outcome)

    @types.coroutine
    def struck() -> Generator[Any, Any, T]:
        nonlocal seen
        steps = work.__await__()
        strike: BaseException | None = None
        while True:
            try:
                waited = next(steps) if strike is None else steps.throw(strike)
            except StopIteration as done:
                return done.value  # type: ignore[no-any-return]
            seen += 1
            task = asyncio.current_task()
            assert task is not None
            if seen in at:
                if how == "as the answer is read" and isinstance(waited, PromptFuture):
                    awaited[waited] = task
                elif how != "at once" and waited is not None:
                    waited.add_done_callback(lambda _, task=task: task.cancel())
                else:
                    task.cancel()
            strike = None
            try:
                yield waited
            except BaseException as error:
                strike = error

    async def run() -> T:
        return await struck()

    with mock.patch.object(PromptFuture, "deliver", deliver):
        task = asyncio.get_running_loop().create_task(run())
        await asyncio.wait([task])
    if task.cancelled():
        try:
            task.result()
        except asyncio.CancelledError as error:
            return error, seen
    return task.result(), seen
