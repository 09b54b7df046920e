"""Threads for the work of requests, and how much of it there may be."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from lockkit.server.problems import HttpProblem

__all__ = ["Workers"]

T = TypeVar("T")
_SECONDS: Final = 20.0
"""Seconds that an answer may take."""
_THREADS: Final = 16
_MOST: Final = 64
"""The most requests at work or waiting; more are refused, lest they pile up while a store is slow."""


class Workers:
    """Some threads. Each store has its own, so that one which hangs delays no request about another one."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="lockkit-server")
        self._mutex = threading.Lock()
        self._calls = 0

    async def do(self, work: Callable[[], T]) -> T:
        """The result of blocking work, on a thread, within the time limit. Longer work goes on unawaited.

        Raises:
            HttpProblem: There is too much to do, or the work takes too long.
        """
        with self._mutex:
            if self._calls >= _MOST:
                raise HttpProblem(503, "busy", "the server has too much to do", headers={"retry-after": "5"})
            self._calls += 1
        try:
            begun = self._threads.submit(work)
        except BaseException:
            self._ended()
            raise
        begun.add_done_callback(lambda _: self._ended())
        try:
            return await asyncio.wait_for(asyncio.wrap_future(begun), _SECONDS)
        except TimeoutError:
            raise HttpProblem(504, "too_late", f"there was no answer within {_SECONDS:.0f} s") from None

    def close(self) -> None:
        """End the threads when they have nothing to do any more; what waits for one is given up."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _ended(self) -> None:
        with self._mutex:
            self._calls -= 1
