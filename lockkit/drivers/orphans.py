"""The thread that works off the orphan list: it tries to remove claims until the answer is definite (S11)."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

from lockkit.drivers.ticker import Ticker
from lockkit.facts import Event
from lockkit.lib.clock import Clock
from lockkit.protocol.effects import Orphan
from lockkit.protocol.orphaning import MANY, Answer, Entry, OrphanList
from lockkit.protocol.running import ask
from lockkit.store.log import Log
from lockkit.store.spi import Backend, Claim, Refused, Unknown
from lockkit.store.starting import start
from lockkit.values.names import claim_id

__all__ = ["Orphans"]

_log = Log("lockkit.driver")

_HELPERS = 8
"""The most threads that help to remove claims."""
_SLACK = 5.0
"""Seconds after which a claim that nobody renews has lapsed, counted from the end of its ttl."""


class Orphans:
    """Works off an :class:`~lockkit.protocol.orphaning.OrphanList`, in the background.

    One thread does everything while the store answers and the thread keeps up. Helpers, on their own threads,
    try slow claims, and join if there are many. Some are reserved for claims that are not slow.

    Args:
        unable: Called when no thread can be started; the callee has to call :meth:`start` before long.
    """

    def __init__(
        self,
        backend: Backend,
        clock: Clock,
        tell: Callable[[Event], None],
        request_timeout: float,
        unable: Callable[[], None] = lambda: None,
    ) -> None:
        self._backend = backend
        self._clock = clock
        self._tell = tell
        self._unable = unable
        self._mutex = threading.RLock()
        many = backend.extras.remove_many is not None
        self._list = OrphanList(request_timeout, together=MANY if many else 1)
        self._until = math.inf
        self._done: Callable[[], None] | None = None
        self._helpers = 0
        self._closed = False
        self._ticker = Ticker("lockkit-orphans", self._turn, clock)

    def add(self, orphan: Orphan) -> None:
        """Take charge of a claim. Never blocks."""
        with self._mutex:
            entry = self._list.add(orphan)
        if not self._ticker.poke(entry.next):
            self._unable()

    def __len__(self) -> int:
        return len(self._list.entries)

    def left(self) -> list[Claim]:
        """The claims that are still to be removed."""
        with self._mutex:
            return self._list.claims()

    def look(self) -> None:
        """Look at the clock now, for a test that moved the clock: a sleeping thread does not notice that."""
        self._ticker.nudge()

    def start(self) -> bool:
        """Start the thread if claims are left and it does not run; False if no thread can be started."""
        return not self._list.entries or self._ticker.running or self._ticker.poke(self._clock.now())

    def flush(self, budget: float) -> None:
        """Try to remove each claim once, now, within ``budget`` seconds in all. For a client that closes."""
        end = self._clock.now() + budget
        with self._mutex:
            parts = self._list.all_in_parts()
        for count, entries in zip(range(len(parts), 0, -1), parts, strict=True):
            left = end - self._clock.now()
            if left <= 0:
                return
            self._try(entries, left / count)

    def close(self) -> None:
        """Stop at once, even if claims are left."""
        self._closed = True
        self._ticker.close()

    def retire(self, done: Callable[[], None]) -> None:
        """Go on until no claim is left, then stop and call ``done``; at once if no claim is left now.

        The list gives up when every claim must have lapsed by itself, because nobody renews them any more.
        """
        longest = max((claim.terms.ttl + claim.terms.lock_delay for claim in self.left()), default=0.0)
        self._until = self._clock.now() + longest + _SLACK
        self._done = done
        if not self._list.entries or not self._ticker.poke(self._clock.now()):
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
        while entries := self._take(slow=False):
            if self._crowded():
                self._get_help()
            self._try(entries)
            if any(entry.slow for entry in entries):
                # The next claims may be slow too, so let helpers try them concurrently.
                self._get_help()
        self._get_help()
        if self._list.entries and self._clock.now() >= self._until:
            self._give_up()
        if not self._list.entries:
            self._finish()
        return min(self._soonest(), self._until)

    def _take(self, *, slow: bool) -> Sequence[Entry]:
        with self._mutex:
            return () if self._closed else self._list.take(self._clock.now(), slow=slow)

    def _crowded(self) -> bool:
        with self._mutex:
            return self._list.crowded(self._clock.now())

    def _soonest(self) -> float:
        """When a thread has to look for work next. A helper looks by itself after each claim."""
        with self._mutex:
            return self._list.soonest(helpers=self._helpers < _HELPERS)

    def _get_help(self) -> None:
        """Hand due claims to a limited number of helpers; remove them here if no thread can be started."""
        while self._helpers < _HELPERS:
            entries = self._take(slow=False) or self._take(slow=True)
            if not entries:
                return
            with self._mutex:
                self._helpers += 1
            try:
                start(partial(self._help, entries), "lockkit-orphans-helper")
            except RuntimeError:  # no more threads can be started
                self._help(entries)

    def _help(self, entries: Sequence[Entry]) -> None:
        while entries:
            self._try(entries)
            entries = self._take(slow=False) or self._take(slow=True)
        with self._mutex:
            self._helpers -= 1
        # The ticker looks after claims that became due meanwhile, and after the end when nothing is left.
        self._ticker.poke(self._soonest() if self._list.entries else 0.0)

    def _give_up(self) -> None:
        with self._mutex:
            names = sorted({repr(claim.terms.name) for claim in self.left()})
            self._list.entries.clear()
        _log.warning(
            "the store has not answered since this client was closed; what it left there has lapsed: %s",
            ", ".join(names),
        )

    def _try(self, entries: Sequence[Entry], longest: float | None = None) -> None:
        """Try to remove claims; log an unexpected error, so that it stops no attempt for other claims."""
        try:
            self._remove(entries, longest)
        except Exception:
            _log.exception("a claim could not be removed; it is tried again")

    def _remove(self, entries: Sequence[Entry], longest: float | None = None) -> None:
        request = self._list.request(entries, longest)
        began = self._clock.now()
        try:
            answer = cast("Answer", ask(self._backend, request))
        except BaseException as error:
            expected = isinstance(error, (Refused, Unknown))
            now = self._clock.now()
            with self._mutex:
                self._list.failed(entries, now, now - began, request.budget, expected=expected)
            if expected:
                return
            raise
        now = self._clock.now()
        with self._mutex:
            removed = self._list.answered(entries, answer, now, now - began, request.budget)
        for entry in removed:
            claim = entry.orphan.claim
            self._tell(Event("removed", claim.terms.name, claim_id(claim.token)))
