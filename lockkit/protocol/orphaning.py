"""The orphan list of a client: claims that the client has given up and still has to remove, until the answer is definite (S11).

This module only decides. A driver takes a claim that is due, sends its request, and reports how that ended. A server that does not
answer (one node of a cluster) must not delay claims on other servers. So the first try of each claim is short. If it takes long and
fails, the claim counts as slow from then on. Slow claims are tried concurrently, a few at a time. So are all others as long as more of
them are due than one thread should have before it: where tasks are cancelled faster than the store removes one claim after the other,
the claims that are left would keep later ones waiting.
"""

from __future__ import annotations

import math

from lockkit.protocol.effects import Abandon, Orphan, Release
from lockkit.store.spi import Claim

__all__ = ["Entry", "OrphanList"]

_FIRST_WAIT, _LONGEST_WAIT = 0.05, 0.8
"""Seconds between two tries, at first and at most; short enough that no orphan is left a second after the store is back (L4)."""
_AFTER_AN_ERROR = 1.0
"""Seconds until the next try after an unexpected exception, which is a bug."""
_FIRST_TRY = 0.3
"""Seconds that a try to remove a claim may take, unless the claim is slow."""
_SLOW = 0.1
"""Seconds after which a failed try marks its claim as slow."""
_MOST_SLOW = 4
"""The most slow claims that are tried at the same time."""
_CROWD = 4


class Entry:
    """One orphan.

    Attributes:
        next: When to try to remove the claim, in CLOCK_BOOTTIME seconds.
        slow: Whether its server was slow, so that a try would delay other claims.
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
        crowd: The most claims that one thread may have before it; if more are due, others help.
    """

    def __init__(self, request_timeout: float, crowd: int = _CROWD) -> None:
        self._request_timeout = request_timeout
        self._crowd = crowd
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
        """The due claim that has waited longest, marked busy; among the slow claims if ``slow``, else among the others."""
        if slow and self._slow >= _MOST_SLOW:
            return None
        due = (one for one in self.entries.values() if one.slow == slow and one.next <= now and not one.busy)
        entry = min(due, key=lambda one: one.next, default=None)
        if entry is not None:
            entry.busy = True
            self._slow += slow
        return entry

    def crowded(self, now: float) -> bool:
        """Whether more claims are due than one thread should remove one after the other."""
        due = 0
        for one in self.entries.values():
            due += one.next <= now and not one.slow and not one.busy
            if due > self._crowd:
                return True
        return False

    def soonest(self, *, helpers: bool = True) -> float:
        """When the next claim that may be taken is due; without ``helpers``, slow claims do not count."""
        full = not helpers or self._slow >= _MOST_SLOW
        waiting = (one for one in self.entries.values() if not (one.busy or (one.slow and full)))
        return min((one.next for one in waiting), default=math.inf)

    def request(self, entry: Entry, longest: float | None = None) -> Release | Abandon:
        """The request that removes a claim, with a budget of ``longest`` seconds, or by default of a short first try or a full request."""
        budget = self._request_timeout if entry.slow else min(_FIRST_TRY, self._request_timeout)
        if longest is not None:
            budget = min(longest, self._request_timeout)
        return entry.orphan.request(budget)

    def failed(self, entry: Entry, now: float, took: float, budget: float, *, expected: bool = True) -> None:
        """Note a try without a definite answer, and when to repeat it.

        Args:
            entry: The entry that :meth:`take` returned.
            now: CLOCK_BOOTTIME seconds.
            took: Seconds that the request took.
            budget: Seconds that the request was allowed to take.
            expected: False after an unexpected exception, which is a bug.
        """
        self._over(entry)
        entry.slow = entry.slow or took >= min(_SLOW, budget)
        entry.next = now + (entry.wait if expected else _AFTER_AN_ERROR)
        entry.wait = min(entry.wait * 2, _LONGEST_WAIT)

    def removed(self, entry: Entry) -> None:
        """Note a try with a definite answer: the claim leaves the list."""
        self._over(entry)
        if self.entries.get(entry.orphan.claim.token) is entry:
            del self.entries[entry.orphan.claim.token]

    def _over(self, entry: Entry) -> None:
        if entry.busy:
            entry.busy = False
            self._slow -= entry.slow
