"""The orphan list: claims that their client no longer stands behind, removed by compare until definite (S11)."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable

from lockkit.clock import Clock
from lockkit.drivers.ticker import Ticker
from lockkit.facts import Event
from lockkit.names import claim_id
from lockkit.protocol.effects import Orphan
from lockkit.store.spi import Backend, Claim, Refused, Unknown

__all__ = ["Orphans"]

_log = logging.getLogger("lockkit.driver")

_FIRST_WAIT, _LONGEST_WAIT = 0.05, 0.8
"""Backoff in seconds; short enough that nothing is left a second after the store is back (L4)."""
_FIRST_TRY = 0.3
"""Seconds that a try to remove a claim may take, as long as its server has been quick to answer."""
_SLOW = 0.1
"""Seconds after which a failed try marks its claim as one that delays others."""
_HELPERS, _FOR_SLOW = 8, 4
"""The most threads that help to remove claims, and how many of them may be busy with claims that delay others."""
_SLACK = 5.0
"""Seconds after which a claim that nobody renews has lapsed, counted from the end of its ttl."""


class _Entry:
    __slots__ = ("busy", "next", "orphan", "slow", "wait")

    def __init__(self, orphan: Orphan) -> None:
        self.orphan = orphan
        self.next = max(orphan.after, 0.0)
        self.wait = _FIRST_WAIT
        self.slow = False
        self.busy = False


class Orphans:
    """Removes what it is given, in the background, each one until the store's answer is definite.

    One thread does all of it as long as the store answers. A claim whose server is silent (one node of a cluster) must not delay
    claims on other servers: its first try is short, and from then on helpers try it, each on a thread of its own. Some
    helpers are reserved for claims that delay nobody.

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
        self._request_timeout = request_timeout
        self._unable = unable
        self._mutex = threading.RLock()
        self._entries: dict[str, _Entry] = {}
        self._until = math.inf
        self._done: Callable[[], None] | None = None
        self._helpers = 0
        self._slow = 0
        self._closed = False
        self._ticker = Ticker("lockkit-orphans", self._turn, clock)

    def add(self, orphan: Orphan) -> None:
        """Take charge of a claim. Never blocks."""
        entry = _Entry(orphan)
        with self._mutex:
            self._entries[orphan.claim.token] = entry
        if not self._ticker.poke(entry.next):
            self._unable()

    def __len__(self) -> int:
        return len(self._entries)

    def left(self) -> list[Claim]:
        """The claims that are still to be removed."""
        with self._mutex:
            return [entry.orphan.claim for entry in self._entries.values()]

    def look(self) -> None:
        """Look at the clock now, for a test that moved the clock: a sleeping thread does not notice that."""
        self._ticker.nudge()

    def start(self) -> bool:
        """Start the thread if there is something to do and that failed before; False if it fails still."""
        return not self._entries or self._ticker.running or self._ticker.poke(self._clock.now())

    def flush(self, budget: float) -> None:
        """Try each claim once, now, without its pause; within ``budget`` seconds in all. For a client that closes."""
        end = self._clock.now() + budget
        with self._mutex:
            entries = list(self._entries.values())
        for count, entry in zip(range(len(entries), 0, -1), entries, strict=True):
            left = end - self._clock.now()
            if left <= 0:
                return
            self._remove(entry, min(left / count, self._request_timeout))

    def close(self) -> None:
        """Stop at once, whatever is left."""
        self._closed = True
        self._ticker.close()

    def retire(self, done: Callable[[], None]) -> None:
        """Go on until nothing is left, then stop and call ``done``; at once if there is nothing.

        But no longer than until every claim has lapsed by itself: nobody renews them any more.
        """
        longest = max((claim.terms.ttl + claim.terms.lock_delay for claim in self.left()), default=0.0)
        self._until = self._clock.now() + longest + _SLACK
        self._done = done
        if not self._entries or not self._ticker.poke(self._clock.now()):
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
        while (entry := self._take(slow=False)) is not None:
            self._remove(entry, self._budget(entry))
            if entry.slow:  # those behind it may be no better: not one after the other
                self._get_help()
        self._get_help()
        if self._entries and self._clock.now() >= self._until:
            self._give_up()
        if not self._entries:
            self._finish()
        return min(self._soonest(), self._until)

    def _take(self, *, slow: bool) -> _Entry | None:
        """The next due claim, marked as busy: of those that delay others if ``slow``, else of the rest."""
        with self._mutex:
            if self._closed or (slow and self._slow >= _FOR_SLOW):
                return None
            now = self._clock.now()
            due = (
                one for one in self._entries.values() if one.slow == slow and one.next <= now and not one.busy
            )
            entry = min(due, key=lambda one: one.next, default=None)
            if entry is not None:
                entry.busy = True
                self._slow += slow
            return entry

    def _soonest(self) -> float:
        """When a thread has to look for work next. A helper looks by itself after each claim."""
        with self._mutex:
            full = self._slow >= _FOR_SLOW or self._helpers >= _HELPERS
            waiting = (one for one in self._entries.values() if not (one.busy or (one.slow and full)))
            return min((one.next for one in waiting), default=math.inf)

    def _get_help(self) -> None:
        """Hand due claims to helpers, up to their number; where no thread can be started, remove them here."""
        while self._helpers < _HELPERS:
            entry = self._take(slow=False) or self._take(slow=True)
            if entry is None:
                return
            with self._mutex:
                self._helpers += 1
            thread = threading.Thread(
                target=self._help, args=(entry,), name="lockkit-orphans-helper", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # there can be no more threads
                self._help(entry)

    def _help(self, entry: _Entry | None) -> None:
        while entry is not None:
            slow = entry.slow
            try:
                self._remove(entry, self._budget(entry))
            except Exception:
                _log.exception("a claim could not be removed; it is tried again in a second")
            with self._mutex:
                self._slow -= slow
            entry = self._take(slow=False) or self._take(slow=True)
        with self._mutex:
            self._helpers -= 1
        # The ticker looks after claims that became due meanwhile, and after the end when nothing is left.
        self._ticker.poke(self._soonest() if self._entries else 0.0)

    def _budget(self, entry: _Entry) -> float:
        return self._request_timeout if entry.slow else min(_FIRST_TRY, self._request_timeout)

    def _give_up(self) -> None:
        with self._mutex:
            names = sorted({repr(claim.terms.name) for claim in self.left()})
            self._entries.clear()
        _log.warning(
            "the store has not answered since this client was closed; what it left there has lapsed: %s",
            ", ".join(names),
        )

    def _remove(self, entry: _Entry, budget: float) -> None:
        orphan = entry.orphan
        method = self._backend.abandon if orphan.abandon else self._backend.release
        began = self._clock.now()
        try:
            method(orphan.claim, budget, graceful=orphan.graceful)
        except BaseException as error:
            now = self._clock.now()
            expected = isinstance(error, (Refused, Unknown))
            entry.slow = entry.slow or now - began >= min(_SLOW, budget)
            entry.next = now + (entry.wait if expected else 1.0)
            entry.wait = min(entry.wait * 2, _LONGEST_WAIT)
            entry.busy = False
            if expected:
                return
            raise
        with self._mutex:
            if self._entries.get(orphan.claim.token) is entry:
                del self._entries[orphan.claim.token]
        self._tell(Event("removed", orphan.claim.terms.name, claim_id(orphan.claim.token)))
