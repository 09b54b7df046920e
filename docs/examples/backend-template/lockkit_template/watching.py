"""Waking of waiters. TODO: use your server's notifications (a channel, a watch, LISTEN) instead of reading the queue every 20 ms."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

__all__ = ["Watching"]

_log = logging.getLogger("lockkit.template")
_EVERY = 0.02


class _Watch:
    def __init__(self, watching: Watching, worthwhile: Callable[[], bool], wake: Callable[[], None]) -> None:
        self._watching = watching
        self.worthwhile = worthwhile
        self.wake = wake

    def close(self) -> None:
        """Stop."""
        self._watching.forget(self)


class Watching:
    """One thread for all waiters of a client. It runs while there are waiters."""

    def __init__(self) -> None:
        self._mutex = threading.RLock()
        self._watches: list[_Watch] = []
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    def watch(self, worthwhile: Callable[[], bool], wake: Callable[[], None]) -> _Watch:
        """Call ``wake`` when the waiter should ask again. The thread reads the queue after this call, so no change is missed."""
        watch = _Watch(self, worthwhile, wake)
        with self._mutex:
            self._watches.append(watch)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="lockkit-template-watch", daemon=True)
                self._thread.start()
        return watch

    def forget(self, watch: _Watch) -> None:
        """End a watch."""
        with self._mutex:
            if watch in self._watches:
                self._watches.remove(watch)

    def close(self) -> None:
        """End the thread."""
        self._closed.set()

    def _run(self) -> None:
        while not self._closed.wait(_EVERY):
            with self._mutex:
                watches = list(self._watches)
                if not watches:
                    self._thread = None
                    return
            for watch in watches:
                try:
                    if watch.worthwhile():
                        watch.wake()
                except Exception:  # must not keep the next waiter from being woken
                    _log.exception("a watch failed")
