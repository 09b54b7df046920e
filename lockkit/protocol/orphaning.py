"""The orphan list of a client: claims that it no longer stands behind, removed by compare until the answer is definite (S11).

Decisions only: a driver takes a claim that is due, sends its request, and says how that ended. A claim whose server is silent (one
node of a cluster) must not delay claims on other servers: its first try is short, and from then on it counts as slow. Slow claims
are tried beside each other, and only so many at a time.
"""

from __future__ import annotations

import math

from lockkit.protocol.effects import Abandon, Orphan, Release
from lockkit.store.spi import Claim

__all__ = ["Entry", "OrphanList"]

_FIRST_WAIT, _LONGEST_WAIT = 0.05, 0.8
"""Backoff in seconds; short enough that nothing is left a second after the store is back (L4)."""
_AFTER_AN_ERROR = 1.0
"""Seconds until a try that ended in an error of the code is repeated."""
_FIRST_TRY = 0.3
"""Seconds that a try to remove a claim may take, as long as its server has been quick to answer."""
_SLOW = 0.1
"""Seconds after which a failed try marks its claim as one that delays others."""
_MOST_SLOW = 4
"""Tries of claims that delay others which may be under way at once."""


class Entry:
    """One orphan.

    Attributes:
        next: When to try it, in CLOCK_BOOTTIME seconds.
        slow: Whether it delays others.
        busy: Whether a try is under way.
    """

    __slots__ = ("busy", "next", "orphan", "slow", "wait")

    def __init__(self, orphan: Orphan) -> None:
        self.orphan = orphan
        self.next = max(orphan.after, 0.0)
        self.wait = _FIRST_WAIT
        self.slow = False
        self.busy = False


class OrphanList:
    """The claims to remove. Used by one thread at a time.

    Args:
        request_timeout: Seconds that a request may take.
    """

    def __init__(self, request_timeout: float) -> None:
        self._request_timeout = request_timeout
        self._slow = 0
        self.entries: dict[str, Entry] = {}

    def add(self, orphan: Orphan) -> Entry:
        """Take charge of a claim."""
        entry = self.entries[orphan.claim.token] = Entry(orphan)
        return entry

    def claims(self) -> list[Claim]:
        """The claims that are still to be removed."""
        return [entry.orphan.claim for entry in self.entries.values()]

    def take(self, now: float, *, slow: bool) -> Entry | None:
        """The next due claim, which is busy from now on: of those that delay others if ``slow``, else of the rest."""
        if slow and self._slow >= _MOST_SLOW:
            return None
        due = (one for one in self.entries.values() if one.slow == slow and one.next <= now and not one.busy)
        entry = min(due, key=lambda one: one.next, default=None)
        if entry is not None:
            entry.busy = True
            self._slow += slow
        return entry

    def soonest(self, *, helpers: bool = True) -> float:
        """When a claim is due next that may be taken; without ``helpers``, of those that delay nobody."""
        full = not helpers or self._slow >= _MOST_SLOW
        waiting = (one for one in self.entries.values() if not (one.busy or (one.slow and full)))
        return min((one.next for one in waiting), default=math.inf)

    def request(self, entry: Entry, longest: float | None = None) -> Release | Abandon:
        """The request that removes a claim, in ``longest`` seconds at most."""
        budget = self._request_timeout if entry.slow else min(_FIRST_TRY, self._request_timeout)
        if longest is not None:
            budget = min(longest, self._request_timeout)
        return entry.orphan.request(budget)

    def failed(self, entry: Entry, now: float, took: float, budget: float, *, expected: bool = True) -> None:
        """A try had no definite answer: repeat it later.

        Args:
            entry: As :meth:`take` gave it.
            now: CLOCK_BOOTTIME seconds.
            took: Seconds that the request took.
            budget: Seconds that it might have taken.
            expected: False after an error of the code.
        """
        self._over(entry)
        entry.slow = entry.slow or took >= min(_SLOW, budget)
        entry.next = now + (entry.wait if expected else _AFTER_AN_ERROR)
        entry.wait = min(entry.wait * 2, _LONGEST_WAIT)

    def removed(self, entry: Entry) -> None:
        """A try had a definite answer."""
        self._over(entry)
        if self.entries.get(entry.orphan.claim.token) is entry:
            del self.entries[entry.orphan.claim.token]

    def _over(self, entry: Entry) -> None:
        if entry.busy:
            entry.busy = False
            self._slow -= entry.slow
