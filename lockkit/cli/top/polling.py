"""A thread that reads repeatedly what the screen shows, so that a silent store never stops the keys."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from lockkit.lib.namedtuples import NamedTuple

__all__ = ["Answer", "Poller", "View", "pause"]

_REST = 4.0
"""The rest after a read, in times of its duration: at most one of five seconds is spent on reads."""


def pause(interval: float, took: float) -> float:
    """The seconds between two reads: the interval, or more, so that reads take a fifth of the time."""
    return max(interval, _REST * took)


class View(NamedTuple):
    """Something to be shown.

    Attributes:
        read: Reads it from the store. Called by the thread of the poller.
        show: Shows what was read, with the time of the answer. Called by the thread of the screen.
    """

    read: Callable[[], Any]
    show: Callable[[Any, float], None]


class Answer(NamedTuple):
    """The result of one read.

    Attributes:
        view: The view that was read.
        found: What was read; None if there was an error.
        error: The error; None if there was none.
        at: Seconds since the epoch.
    """

    view: View
    found: Any
    error: Exception | None
    at: float


class Poller:
    """Reads one view at an interval, and at once when another view is to be shown.

    The interval is in seconds, and longer after a slow read, so that a large store is not kept busy.
    """

    def __init__(self, tell: Callable[[Answer], None], interval: float) -> None:
        self._tell = tell
        self._interval = interval
        self._view: View | None = None
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lockkit-top", daemon=True)

    def show(self, view: View) -> None:
        """Read this view from now on."""
        self._view = view
        if not self._thread.is_alive():
            self._thread.start()
        self._wake.set()

    def again(self) -> None:
        """Read at once."""
        self._wake.set()

    def stop(self) -> None:
        """Read no more. A read in progress may go on until the store's deadline; its answer is dropped."""
        self._stopped.set()
        self._wake.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._wake.clear()
            view = self._view
            assert view is not None
            began = time.monotonic()
            found, error = None, None
            try:
                found = view.read()
            except Exception as caught:
                error = caught
            if self._stopped.is_set():
                return
            self._tell(Answer(view, found, error, time.time()))
            self._wake.wait(pause(self._interval, time.monotonic() - began))
