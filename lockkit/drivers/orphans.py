"""The orphan list: claims that their client no longer stands behind, removed by compare until definite (S11)."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from lockkit.clock import Clock
from lockkit.drivers.ticker import Ticker
from lockkit.facts import Event
from lockkit.names import claim_id
from lockkit.protocol.effects import Orphan
from lockkit.spi import Backend, Refused, Unknown

__all__ = ["Orphans"]

_FIRST_WAIT, _LONGEST_WAIT = 0.05, 0.8
"""Backoff in seconds; short enough that nothing is left a second after the store is back (L4)."""


class _Entry:
    __slots__ = ("next", "orphan", "wait")

    def __init__(self, orphan: Orphan) -> None:
        self.orphan = orphan
        self.next = max(orphan.after, 0.0)
        self.wait = _FIRST_WAIT


class Orphans:
    """Removes what it is given, in the background, each one until the store's answer is definite."""

    def __init__(
        self, backend: Backend, clock: Clock, tell: Callable[[Event], None], request_timeout: float
    ) -> None:
        self._backend = backend
        self._clock = clock
        self._tell = tell
        self._request_timeout = request_timeout
        self._mutex = threading.RLock()
        self._entries: dict[str, _Entry] = {}
        self._done: Callable[[], None] | None = None
        self._ticker = Ticker("lockkit-orphans", self._turn, clock)

    def add(self, orphan: Orphan) -> None:
        """Take charge of a claim. Never blocks."""
        entry = _Entry(orphan)
        with self._mutex:
            self._entries[orphan.claim.token] = entry
        self._ticker.poke(entry.next)

    def __len__(self) -> int:
        return len(self._entries)

    def look(self) -> None:
        """Look at the clock now; for whoever moved it (a test). A thread that sleeps does not notice."""
        self._ticker.nudge()

    def flush(self, budget: float) -> None:
        """Try each once, now, whatever it was to wait for; within ``budget`` seconds in all. For a client that closes."""
        end = self._clock.now() + budget
        with self._mutex:
            entries = list(self._entries.values())
        for entry in entries:
            left = end - self._clock.now()
            if left <= 0:
                return
            self._remove(entry, min(left, self._request_timeout))

    def close(self) -> None:
        """Stop at once, whatever is left."""
        self._ticker.close()

    def retire(self, done: Callable[[], None]) -> None:
        """Go on until nothing is left, then stop and call ``done``; at once if there is nothing."""
        self._done = done
        self._ticker.nudge()
        if not self._entries:
            self._finish()

    def _finish(self) -> None:
        done, self._done = self._done, None
        if done is not None:
            self._ticker.close()
            done()

    def join(self, timeout: float) -> None:
        """Wait for the thread to end, at most ``timeout`` seconds."""
        self._ticker.join(timeout)

    def _turn(self) -> float:
        now = self._clock.now()
        with self._mutex:
            entries = [entry for entry in self._entries.values() if entry.next <= now]
        for entry in entries:
            self._remove(entry, self._request_timeout)
        if not self._entries:
            self._finish()
        with self._mutex:
            return min((entry.next for entry in self._entries.values()), default=math.inf)

    def _remove(self, entry: _Entry, budget: float) -> None:
        orphan = entry.orphan
        method = self._backend.abandon if orphan.abandon else self._backend.release
        try:
            method(orphan.claim, budget, graceful=orphan.graceful)
        except (Refused, Unknown):
            entry.next = self._clock.now() + entry.wait
            entry.wait = min(entry.wait * 2, _LONGEST_WAIT)
            return
        with self._mutex:
            if self._entries.get(orphan.claim.token) is entry:
                del self._entries[orphan.claim.token]
        self._tell(Event("removed", orphan.claim.terms.name, claim_id(orphan.claim.token)))
