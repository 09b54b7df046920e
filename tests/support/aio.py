"""Clients of the asyncio face on the harnesses of the kit, and what they may leave behind."""

from __future__ import annotations

import asyncio
import functools
import gc
import time
from collections.abc import Callable, Coroutine, Generator
from typing import Any, ParamSpec, TypeVar

from lockkit.aio import AsyncClient
from lockkit.testing.harness import Harness

__all__ = ["client_of", "in_a_loop", "settled", "soon", "stepped_until"]

P = ParamSpec("P")
R = TypeVar("R")
_PATIENCE = 30.0


def client_of(harness: Harness, **settings: Any) -> AsyncClient:
    """A new client of the asyncio face on the store of a harness."""
    return AsyncClient(harness.client(**settings))


def in_a_loop(test: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, R]:
    """Run a test in an event loop of its own, and fail if the loop reports what nobody handled."""

    @functools.wraps(test)
    def run(*args: P.args, **keywords: P.kwargs) -> R:
        reported: list[dict[str, Any]] = []

        async def watched() -> R:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
            result = await test(*args, **keywords)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, f"tasks are left: {left}"
            return result

        result = asyncio.run(watched())
        gc.collect()
        assert not reported, f"the loop reported: {reported}"
        return result

    return run


async def soon(happened: Callable[[], object]) -> None:
    """Wait until something that no event announces has happened."""
    end = time.monotonic() + _PATIENCE
    while not happened():
        assert time.monotonic() < end, f"not within {_PATIENCE} s: {happened}"
        await asyncio.sleep(0.005)


async def settled(client: AsyncClient, harness: Harness, *names: str) -> None:
    """Wait until nothing of a client is in the store (by names, else ``a``) or under way here."""
    engine = client._opening.engine  # noqa: SLF001
    assert engine is not None
    await soon(lambda: not engine.under_way)
    await soon(lambda: not engine.beats.members)
    await soon(lambda: not len(engine.orphans))
    await soon(lambda: not engine.beats.releasing)
    assert not engine.registry.holds
    for name in names or ("a",):
        left = await asyncio.to_thread(harness.stored, name)
        assert left == [], f"left in the store: {left}"


async def stepped_until(reached: asyncio.Event, coroutine: Coroutine[Any, Any, Any]) -> None:
    """Run a coroutine until it has set an event and waits again, and leave it: neither ended nor closed."""
    await _Steps(reached, coroutine)


class _Steps:
    def __init__(self, reached: asyncio.Event, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._reached = reached
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, None]:
        while True:
            waited_for = self._coroutine.send(None)
            if self._reached.is_set():
                return
            yield waited_for
