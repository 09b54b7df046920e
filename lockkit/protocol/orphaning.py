"""The orphan list of a client: claims given up that it has to remove, until the answer is definite (S11).

This module only decides. A driver takes a claim that is due, sends its request, and reports how that ended. A
server that does not answer (one node of a cluster) must not delay claims on other servers. So the first try
of each claim is short. If it takes long and fails, the claim counts as slow from then on. Slow claims are
tried concurrently, a few at a time. So are all others while more of them are due than one thread should have
before it: tasks may be cancelled faster than the store removes one claim after the other.

A store may remove many claims at once. Then the claims that are due go together, those of hundreds of
cancelled waits in a few requests. A claim that was not removed in company is tried alone next.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from heapq import nsmallest
from operator import attrgetter
from typing import TypeAlias

from lockkit.protocol.effects import Abandon, Orphan, Release, RemoveMany
from lockkit.store.spi import Claim, Refused, ReleaseAnswer, Removal, Unknown

__all__ = ["MANY", "Answer", "Entry", "OrphanList"]

MANY = 100
"""The most claims of one request, to a store that can remove many."""
Answer: TypeAlias = ReleaseAnswer | Sequence[Refused | Unknown | None]
"""The answer to a request that removes one claim, or many."""

_FIRST_WAIT, _LONGEST_WAIT = 0.05, 0.8
"""Seconds between two tries, at first and at most: no orphan outlives the return of the store by 1 s (L4)."""
_AFTER_AN_ERROR = 1.0
"""Seconds until the next try after an unexpected exception, which is a bug."""
_FIRST_TRY = 0.3
"""Seconds that a try to remove a claim may take, unless the claim is slow."""
_SLOW = 0.1
"""Seconds after which a failed try marks its claim as slow."""
_REST = 0.001
"""Seconds between a failed try and the next one. A dead server refuses at once: without a rest, hundreds of
tries in one go would take the interpreter from the rest of the process."""
_MOST_SLOW = 4
"""The most slow claims that are tried at the same time."""
_CROWD = 4


class Entry:
    """One orphan.

    Attributes:
        next: When to try to remove the claim, in CLOCK_BOOTTIME seconds.
        slow: Whether its server was slow, so that a try would delay other claims.
        busy: Whether a try is under way.
        alone: Whether the next try is for this claim alone, because one with others did not remove it.
    """

    __slots__ = ("alone", "busy", "next", "orphan", "slow", "wait")

    def __init__(self, orphan: Orphan) -> None:
        self.orphan = orphan
        self.next = max(orphan.after, 0.0)
        self.wait = _FIRST_WAIT
        self.slow = False
        self.busy = False
        self.alone = False


class OrphanList:
    """The claims to remove. Used by one thread at a time.

    Args:
        request_timeout: Seconds that a request may take.
        crowd: The most requests that one thread may have before it; if more are due, others help.
        together: The most claims that the store can remove in one request.
    """

    def __init__(self, request_timeout: float, crowd: int = _CROWD, together: int = 1) -> None:
        self._request_timeout = request_timeout
        self._crowd = crowd * together
        self._together = together
        self._slow = 0
        self._rests_until = 0.0
        self.entries: dict[str, Entry] = {}

    def add(self, orphan: Orphan) -> Entry:
        """Take charge of a claim."""
        entry = self.entries[orphan.claim.token] = Entry(orphan)
        return entry

    def claims(self) -> list[Claim]:
        """The claims that are still to be removed."""
        return [entry.orphan.claim for entry in self.entries.values()]

    def take(self, now: float, *, slow: bool) -> Sequence[Entry]:
        """The due claims for one request, marked busy: the oldest of the slow ones if ``slow``, else others.

        More than one only for a store that can remove many. One that is to be tried alone has its turn, too.
        """
        if now < self._rests_until or (slow and self._slow >= _MOST_SLOW):
            return ()
        due = (one for one in self.entries.values() if one.slow == slow and one.next <= now and not one.busy)
        entries = nsmallest(self._together, due, attrgetter("next"))
        if len(entries) > 1:
            entries = entries[:1] if entries[0].alone else [one for one in entries if not one.alone]
        for entry in entries:
            entry.busy = True
        self._slow += slow * len(entries)
        return entries

    def all_in_parts(self) -> Sequence[Sequence[Entry]]:
        """Every claim, in parts for one request each."""
        entries, many = list(self.entries.values()), self._together
        return [entries[first : first + many] for first in range(0, len(entries), many)]

    def crowded(self, now: float) -> bool:
        """Whether more claims are due than one thread should remove, request by request."""
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
        return max(self._rests_until, min((one.next for one in waiting), default=math.inf))

    def request(
        self, entries: Sequence[Entry], longest: float | None = None
    ) -> Release | Abandon | RemoveMany:
        """The request that removes claims, with ``longest`` seconds, or for a short first or a full try."""
        budget = self._request_timeout if entries[0].slow else min(_FIRST_TRY, self._request_timeout)
        if longest is not None:
            budget = min(longest, self._request_timeout)
        if len(entries) == 1:
            return entries[0].orphan.request(budget)
        orphans = [entry.orphan for entry in entries]
        return RemoveMany([Removal(one.claim, one.abandon, one.how) for one in orphans], budget)

    def answered(
        self, entries: Sequence[Entry], answer: Answer, now: float, took: float, budget: float
    ) -> Sequence[Entry]:
        """Note the answer to :meth:`request`; arguments as for :meth:`failed`. Returns the removed claims."""
        troubles = [None] if len(entries) == 1 else answer
        answers = list(zip(entries, troubles, strict=True))
        removed = [entry for entry, trouble in answers if trouble is None]
        for entry in removed:
            self.removed(entry)
        self.failed([entry for entry, trouble in answers if trouble is not None], now, took, budget)
        return removed

    def failed(
        self, entries: Sequence[Entry], now: float, took: float, budget: float, *, expected: bool = True
    ) -> None:
        """Note a try without a definite answer, and when to repeat it.

        Args:
            entries: The entries that :meth:`take` returned.
            now: CLOCK_BOOTTIME seconds.
            took: Seconds that the request took.
            budget: Seconds that the request was allowed to take.
            expected: False after an unexpected exception, which is a bug.
        """
        if entries and took < _SLOW:
            self._rests_until = now + _REST
        for entry in entries:
            self._over(entry)
            entry.alone = self._together > 1 and not entry.alone
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
