"""The heartbeat of a client: which claims are renewed when, and which holds have run out.

This module only decides. A driver runs :meth:`Beats.beating` (renewals) and :meth:`Beats.looking` (losses),
each when it is due, and performs their effects. A client has a thread for each, so that a hold is declared
lost on time even while a renewal hangs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from typing import Any, Protocol

from lockkit.errors import CapabilityError, ConfigError
from lockkit.facts import Progress
from lockkit.notes.remarks import telling
from lockkit.protocol.effects import Annotate, Effect, GoOn, Notify, Now
from lockkit.protocol.hold import Hold
from lockkit.protocol.renewing import batch, drop_of, due, losing, renewing, waiter_interval
from lockkit.store.spi import Claim, Refused, Unknown

__all__ = ["MOMENT", "Alarm", "Beats", "Waiter"]

_RETRY = 0.25
"""Seconds until a batch that got no answer is sent again; doubles up to a third of the shortest ttl."""
MOMENT = 0.05
"""Seconds between two looks at an unfinished release or attempt, interrupted if both find no thread on it."""
_COALESCE = 1.0 / 12.0
"""A batch also takes claims due within this share of their ttl, a quarter of the renewal interval."""
_PATIENCE = 3
"""Unanswered renewals after which a waiter's thread is woken: only it can report an outage and give up."""


class Alarm(Protocol):
    """A timer that calls :meth:`Beats.beating` or :meth:`Beats.looking` when it is due."""

    @property
    def due(self) -> float:
        """CLOCK_BOOTTIME seconds of the next call; infinity for none."""

    def poke(self, at: float) -> object:
        """Make sure that the next call is no later than ``at``. Never blocks or fails."""


class _NoAlarm:
    """A timer that does nothing, for a driver that asks :meth:`Beats.next` itself."""

    due = -math.inf

    def poke(self, at: float) -> object:
        """Do nothing."""


class Waiter:
    """A waiting claim in the heartbeat.

    Attributes:
        failures: As that of a :class:`~lockkit.protocol.hold.Hold`, and so is ``next``.
        ring: Makes the waiting thread ask the store again.
        ttl: Three times the interval between its renewals, in seconds, as for a hold.
        unanswered: How many of its renewals had no answer.
    """

    __slots__ = ("claim", "failures", "next", "ring", "ttl", "unanswered")

    def __init__(self, claim: Claim, ttl: float, due: float, ring: Callable[[], None]) -> None:
        self.claim = claim
        self.ring = ring
        self.ttl = ttl
        self.next = due
        self.failures = 0
        self.unanswered = 0

    def wake(self) -> None:
        """Make the waiting thread ask the store again."""
        self.ring()

    def missed(self) -> None:
        """Count an unanswered renewal; after several, make the waiting thread ask the store."""
        self.unanswered += 1
        if self.unanswered % _PATIENCE == 0:
            self.ring()


class Beats:
    """The claims that a client keeps alive, and when each is due.

    Several threads may use this without a lock: each access to ``members`` is one atomic operation of a dict.

    Args:
        now: CLOCK_BOOTTIME seconds.
        jitter: A random number in 0..1.
        waiter_deadline: Seconds after which the store drops a waiter that sends nothing.
        request_timeout: Seconds that one batch may take.
        renewed: Called with the number of holds that a batch renewed.

    Attributes:
        members: Held and waiting claims, by token, also those being released. Ended holds are not renewed.
        untold: The progress that holders reported with ``beat`` since their last renewal, by token.
        releasing: Holds whose release has started and has no report yet.
        closing: Whether the client closes, or is closed: nothing is granted any more, and collected holds are
            released, not left to lapse.
        to_beat: The timer that calls :meth:`beating`.
        to_look: The timer that calls :meth:`looking`.
    """

    __slots__ = (
        "_cut_short",
        "_interval",
        "_jitter",
        "_now",
        "_renewed",
        "_request_timeout",
        "_waiter_ttl",
        "closing",
        "members",
        "releasing",
        "to_beat",
        "to_look",
        "untold",
    )

    def __init__(
        self,
        now: Now,
        jitter: Callable[[], float],
        waiter_deadline: float,
        request_timeout: float,
        renewed: Callable[[int], None],
    ) -> None:
        self._now = now
        self._jitter = jitter
        self._interval = waiter_interval(waiter_deadline)
        self._waiter_ttl = 3.0 * self._interval  # one for all of them
        self._request_timeout = request_timeout
        self._renewed = renewed
        self._cut_short: set[Hold] = set()
        self.closing = False
        self.members: dict[str, Hold | Waiter] = {}
        self.releasing: dict[Hold, None] = {}
        self.untold: dict[str, Progress] = {}
        self.to_beat: Alarm = _NoAlarm()
        self.to_look: Alarm = _NoAlarm()

    def hold(self, hold: Hold) -> None:
        """Keep a granted claim alive; its hold replaces its waiter."""
        if hold.auto_renew:
            hold.next = due(hold.basis, hold.ttl, self._jitter(), self._now())
        self.members[hold.claim.token] = hold
        if hold.next < self.to_beat.due:
            self.to_beat.poke(hold.next)
        if hold.expires < self.to_look.due:
            self.to_look.poke(hold.expires)

    def waiter(self, claim: Claim, ring: Callable[[], None]) -> Waiter:
        """Keep a waiting claim alive; ``ring`` makes its thread ask the store again."""
        due = self._now() + self._interval
        waiter = self.members[claim.token] = Waiter(claim, self._waiter_ttl, due, ring)
        self.to_beat.poke(waiter.next)
        self.to_look.poke(waiter.next)
        return waiter

    def withdraw(self, token: str) -> None:
        """Stop renewing a claim: later batches leave it out, and a late answer changes nothing."""
        self.members.pop(token, None)
        self.untold.pop(token, None)

    def over(self, hold: Hold) -> None:
        """Forget a hold whose release is over."""
        token = hold.claim.token
        self.members.pop(token, None)
        self.untold.pop(token, None)
        self.releasing.pop(hold, None)

    def tell(self, token: str, progress: Progress) -> None:
        """Have the next renewal of a hold followed by its holder's progress, in place of an unwritten one."""
        if token in self.members:
            self.untold[token] = progress

    def forget(self, waiter: Waiter) -> None:
        """Forget a wait that is over; if the claim is held by now, its hold stays."""
        if self.members.get(waiter.claim.token) is waiter:
            self.members.pop(waiter.claim.token, None)

    def holds(self) -> list[Hold]:
        """The holds of the client, including those that it has lost or started to release."""
        return [member for member in list(self.members.values()) if isinstance(member, Hold)]

    def again(self, hold: Hold) -> None:
        """Plan the next renewal anew, for a hold whose basis or ttl has changed outside the heartbeat."""
        if self.members.get(hold.claim.token) is hold:
            hold.failures = 0
            if hold.auto_renew:
                hold.next = due(hold.basis, hold.ttl, self._jitter(), self._now())
            self.to_beat.poke(hold.next)
            self.to_look.poke(hold.expires)

    def suspect(self, token: str) -> None:
        """Renew a hold now: the store suspects that its claim is gone. May be called from any thread."""
        member = self.members.get(token)
        if isinstance(member, Hold):
            member.next = min(member.next, self._now())
            self.to_beat.poke(member.next)

    def waiting(self) -> list[Waiter]:
        """The claims that wait."""
        return [member for member in list(self.members.values()) if isinstance(member, Waiter)]

    def next(self) -> float:
        """When :meth:`beating` is due."""
        return min([member.next for member in list(self.members.values())], default=math.inf)

    # With ten thousand holds, hardly any is in the processor's cache when it is due: each object that is read
    # costs time. The code below reads only a few fields of each.

    def beating(self) -> Generator[Effect, Any, None]:
        """Renew the claims that are due, together with those that are nearly due."""
        now = self._now()
        soon = [
            member for member in list(self.members.values()) if member.next <= now + _COALESCE * member.ttl
        ]
        renewed: list[tuple[Hold | Waiter, float]] = []
        while members := self._wanted(soon):
            sent = self._now()
            together, soon, budget = batch(members, sent, self._request_timeout)
            before = [member.basis if isinstance(member, Hold) else 0.0 for member in together]
            answered = yield from renewing(together, self._now, budget, self._renewed)
            self._reschedule(together, before, sent, answered=answered)
            if self.untold and answered:
                renewed += zip(together, before, strict=True)
        if renewed:
            yield from self._telling(renewed)

    def _telling(self, renewed: list[tuple[Hold | Waiter, float]]) -> Generator[Effect, Any, None]:
        """Write the progress that holders reported into the notes of the claims that were just renewed.

        Renewals come first. The writes take at most a quarter of the time that any hold has left. Those that
        do not get their turn, and all after the first failure, wait for the next renewal.
        """
        now = self._now()
        ends = min([hold.expires for hold in self.holds() if hold.expires > now], default=math.inf)
        until = now + min(self._request_timeout, (ends - now) / 4.0)
        for hold, moved_from in renewed:
            token = hold.claim.token
            told = self.untold.get(token)
            if told is None or not isinstance(hold, Hold) or hold.basis == moved_from:
                continue
            if hold.ended or hold.lost_why:
                continue
            budget = until - self._now()
            if budget <= 0.0:
                return
            try:
                yield Annotate(hold.name, hold.claim_id, telling(told), budget)
            except (Refused, Unknown):
                return
            except (ConfigError, CapabilityError):
                pass  # the note is full, or the store has none
            if self.untold.get(token) is told:
                self.untold.pop(token, None)

    def _wanted(self, members: list[Hold | Waiter]) -> list[Hold | Waiter]:
        """The members still to be renewed: some may have ended, or been lost, during an earlier batch."""
        wanted, closing = [], self.closing
        for member in members:
            if isinstance(member, Hold) and (
                member.ended or member.lost_why or (member.dropped and not closing)
            ):
                member.next = math.inf
            elif self.members.get(member.claim.token) is member:
                wanted.append(member)
        return wanted

    def _reschedule(
        self, members: list[Hold | Waiter], before: list[float], sent: float, *, answered: bool
    ) -> None:
        now = self._now()
        # One for all: claims that are due at nearly the same time share a batch anyway.
        chance = self._jitter()
        basis = ttl = after = 0.0
        # A store may count from when it got the request; on a busy machine the answer comes seconds later.
        later = max(sent + self._interval, now + _RETRY)
        for member, moved_from in zip(members, before, strict=True):
            if not answered:
                member.failures += 1
                longest = max(_COALESCE * member.ttl, 0.02)
                member.next = now + min(_RETRY * 2.0 ** min(member.failures - 1, 8), longest)
                continue
            member.failures = 0
            if not isinstance(member, Hold):
                member.next = later
            elif member.basis == moved_from:
                member.next = now + min(_RETRY, _COALESCE * member.ttl)
            else:
                if member.basis != basis or member.ttl != ttl:
                    basis, ttl = member.basis, member.ttl
                    after = due(basis, ttl, chance, now)
                member.next = after

    def looking(self) -> Generator[Effect, Any, float]:
        """Declare lost every hold that has run out, even while a renewal hangs; return when to look again.

        Run this sooner if a hold was added, dropped or planned anew, or its release was interrupted.
        """
        now = self._now()
        holds = self.holds()
        again = now + MOMENT if (yield from self._look_at_releases(holds)) else math.inf
        closing = self.closing
        for hold in holds:
            if hold.in_hand and not (hold.closing or hold.ended or hold.lost_why or hold.process_bound):
                ends = hold.expires
                if now < ends:
                    again = min(again, ends)
                    continue
            if hold.collected and not hold.closing:
                hold.dropped = True  # in case a signal interrupted its finalizer, which sets this
            if hold.dropped and not (hold.closing or hold.ended or hold.lost_why) and hold.report_drop():
                yield Notify(drop_of(hold))
            if hold.dropped and closing and not hold.ended:
                continue  # the close releases it, with its hooks
            if hold.ended or hold.lost_why:
                if hold.dropped:
                    self.withdraw(hold.claim.token)
                continue
            why = hold.overdue(now)
            if hold.dropped and now >= hold.expires:
                why = "collected"
            if why:
                yield from losing(hold, why)
                if hold.dropped:
                    self.withdraw(hold.claim.token)
            else:
                again = min(again, _next_deadline(hold, now))
        return again

    def _look_at_releases(self, holds: list[Hold]) -> Generator[Effect, Any, bool]:
        """Have interrupted releases resumed; return whether to look again in a moment."""
        seen, self._cut_short = self._cut_short, set()
        given_up = [hold for hold in holds if (hold.closing or not hold.in_hand) and hold.given_up]
        for hold in {*given_up, *list(self.releasing)}:
            if hold.report is not None:
                self.over(hold)
                continue
            self._cut_short.add(hold)
            if hold in seen:  # the last look found it too, so it has not just started
                yield GoOn(hold)
        return bool(self._cut_short)


def _next_deadline(hold: Hold, now: float) -> float:
    """When to look at a hold again. A process-bound hold without answers is not lost, only not valid."""
    if hold.process_bound and not hold.dropped:
        return min(now + hold.claim.terms.ttl, hold.latest)  # the first to find an interrupted release of it
    return max(hold.expires, now + 0.001)
