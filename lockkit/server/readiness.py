"""Whether a store answers, for probes: within a second, even if the store hangs and many ask."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from lockkit.errors import LockkitError

__all__ = ["Readiness"]

_PATIENCE: Final = 1.0
"""Seconds after which a store that has not answered is not ready."""
_COUNTS: Final = 1.0
"""Seconds for which an answer counts."""


class Readiness:
    """One question to a store at a time, on a thread of its own, for all who ask.

    Args:
        ask: A question to the store, which may block; raises a LockkitError if it does not answer.
    """

    def __init__(self, ask: Callable[[], object]) -> None:
        self._ask = ask
        self._mutex = threading.Lock()
        self._asked: Future[bool] | None = None
        self._begun = 0.0
        self._ended = 0.0

    async def ready(self) -> bool:
        """Whether the store answers, within a second."""
        asked, begun = self._question()
        left = begun + _PATIENCE - time.monotonic()
        if asked.done() or left <= 0.0:
            return asked.done() and asked.result()
        try:
            return await asyncio.wait_for(asyncio.wrap_future(asked), left)
        except TimeoutError:
            return False

    def _question(self) -> tuple[Future[bool], float]:
        """The question under way, or whose answer still counts, and when it started."""
        with self._mutex:
            now = time.monotonic()
            if self._asked is None or (self._asked.done() and now - self._ended >= _COUNTS):
                self._asked, self._begun = Future(), now
                # A running future cannot be cancelled, so one who stops waiting takes no answer from others.
                self._asked.set_running_or_notify_cancel()
                threading.Thread(
                    target=self._answer, args=(self._asked,), name="lockkit-server-ready", daemon=True
                ).start()
            return self._asked, self._begun

    def _answer(self, asked: Future[bool]) -> None:
        answers = False
        try:
            self._ask()
            answers = True
        except LockkitError:
            pass
        finally:
            self._ended = time.monotonic()
            asked.set_result(answers)
