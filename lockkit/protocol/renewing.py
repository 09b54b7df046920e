"""Renew: one batch of heartbeats, and the steps after a loss.

A heartbeat renews a claim for its Lease. It carries the fence of that Lease, or none while the claim has no Lease. A heartbeat never
grants: the answer OFFERED only wakes the waiter. An answer that arrives after the hold has run out or ended changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from math import inf
from typing import Any, Protocol, TypeVar

from lockkit.caller import shown
from lockkit.facts import Event, Reason
from lockkit.hold import Hold
from lockkit.protocol.effects import Asked, Effect, Lost, Notify, Now, Orphan, Renew
from lockkit.store.spi import POLL_CAP, Beat, Refused, Renewal, Unknown

__all__ = ["Member", "batch", "drop_of", "due", "losing", "patience", "renewing", "waiter_interval"]

_SHARE = 3.0
"""A claim is renewed when this part (a third) of its ttl has passed since its basis."""
_REST = 4.0
"""But no sooner than when this part (a quarter) of the remaining time has passed."""
_LEAST = 0.05
"""Seconds that a renewal may take at least, even if less time is left."""
_UNLIKE = 2.0
"""The most by which the budgets of claims in one batch may differ: the longest is at most this many times the shortest."""


class Member(Protocol):
    """One claim in the heartbeat: a hold, or a claim that waits."""

    @property
    def beat(self) -> Beat:
        """The claim, with the fence of its hold."""

    @property
    def hold(self) -> Hold | None:
        """The hold of the claim; None while the claim waits."""

    @property
    def unanswered(self) -> int:
        """How many renewals of a claim that waits had no answer; 0 for a hold, whose expiry says more."""

    def wake(self) -> None:
        """Make the waiting thread ask the store again."""

    def missed(self) -> None:
        """Note that a renewal was not answered."""


M = TypeVar("M", bound=Member)


def due(basis: float, ttl: float, jitter: float, now: float) -> float:
    """When to renew a hold: a third of its ttl after its basis, up to a tenth of that earlier (``jitter`` in 0..1).

    The result is at least a quarter of the remaining time after ``now``. A store may report an old basis, for example that of a
    session which is renewed for all its claims; asking again at once would get the same answer.
    """
    share = 1.0 - 0.1 * jitter
    third, quarter = basis + ttl / _SHARE * share, now + (basis + ttl - now) / _REST * share
    return third if third > quarter else quarter  # noqa: FURB136 (without a call: each lock passes here)


def patience(hold: Hold | None, now: float, longest: float) -> float:
    """Seconds that the renewal of one claim may take: short enough that it can be sent once more before the hold runs out.

    Args:
        hold: None for a claim that waits.
        now: CLOCK_BOOTTIME seconds.
        longest: Seconds that any call may take.
    """
    return _patience(inf if hold is None else hold.expires, now, longest)


def _patience(expires: float, now: float, longest: float) -> float:
    left = expires - now
    return max(_LEAST, min(longest, left / 2)) if left > 0 else longest


def batch(members: Sequence[M], now: float, longest: float) -> tuple[list[M], list[M], float]:
    """Choose the claims for one batch: the most urgent one, and all whose budget is at most twice as long.

    The order is that of urgency. A store that has no time for all of them leaves out the last ones, and they come first the next time.

    A batch has one budget, the shortest of its claims. A hold with a ttl of 0.25 s in the same batch would therefore make the
    renewal of a hold with a ttl of 30 s fail whenever the store takes longer than the short hold can wait.

    Returns:
        The members to renew now, those left for the next batch, and the budget of this batch.
    """
    expires = [inf if (hold := member.hold) is None else hold.expires for member in members]
    first = min(expires)
    if (
        first > now
    ):  # then a claim that ends later has a longer budget, so two of ten thousand show whether all go together
        budget = _patience(first, now, longest)
        if _patience(max(expires), now, longest) <= _UNLIKE * budget:
            return _urgent_first(members, expires), [], budget
    budgets = [_patience(each, now, longest) for each in expires]
    budget = min(budgets)
    most = _UNLIKE * budget
    together = [
        (member, end) for member, end, own in zip(members, expires, budgets, strict=True) if own <= most
    ]
    others = [member for member, own in zip(members, budgets, strict=True) if own > most]
    return _urgent_first([member for member, _ in together], [end for _, end in together]), others, budget


def _urgent_first(members: Sequence[M], expires: Sequence[float]) -> list[M]:
    """Members in order of expiry; then the claims that wait, in the order in which they have missed most renewals."""
    if inf in expires:
        ranks = [
            (end, -member.unanswered if end == inf else 0)
            for member, end in zip(members, expires, strict=True)
        ]
        return [members[at] for at in sorted(range(len(members)), key=ranks.__getitem__)]
    if sorted(expires) == expires:  # the usual case, and a fast one with ten thousand members
        return list(members)
    return [members[at] for at in sorted(range(len(members)), key=expires.__getitem__)]


def waiter_interval(waiter_deadline: float) -> float:
    """Seconds between the heartbeats of a waiting claim: a third of its deadline, at most the poll cap."""
    return min(POLL_CAP, waiter_deadline / _SHARE) if waiter_deadline > 0 else POLL_CAP


def renewing(
    members: Sequence[Member], now: Now, budget: float, renewed: Callable[[int], None]
) -> Generator[Effect, Any, bool]:
    """Send one batch; True if it was answered.

    Args:
        members: The claims to renew.
        now: CLOCK_BOOTTIME seconds.
        budget: Seconds that the call may take.
        renewed: Called with the number of holds that were renewed.
    """
    beats = [member.beat for member in members]
    try:
        renewals = yield Renew(beats, budget)
    except (Refused, Unknown) as trouble:
        for member in members:
            member.missed()
            if member.hold is not None and not member.hold.ended:
                yield Notify(_failed(member.hold, str(trouble)))
        return False
    at = now()
    count = 0
    state, basis, requests, why, unknown = last = Renewal("UNKNOWN")
    for member, renewal in zip(members, renewals, strict=True):
        if renewal is not last:  # many members often share one answer object
            last = renewal
            state, basis, requests, why, unknown = renewal
        hold = member.hold
        if state == "UNKNOWN":
            member.missed()
            if hold is not None and not hold.ended:
                yield Notify(_failed(hold, unknown))
        elif hold is None:
            if state != "WAITING":
                member.wake()
        elif state == "HELD":
            hold.requests = requests
            if hold.renewed(basis, at):
                count += 1
                if requests is not None and (new := hold.asked.heard(requests)):
                    yield Asked(hold, new)
            else:
                yield from losing(hold, hold.overdue(at) or "lost")
        else:
            # The store's clock may reach max_hold or the deadline before ours does.
            yield from losing(hold, why if why == "evicted" else hold.overdue(at) or why or "lost")
    renewed(count)
    return True


def losing(hold: Hold, why: Reason) -> Generator[Effect, Any, None]:
    """Declare a hold lost, once: report the loss, and have the claim removed in the background (S6, S11).

    The claim keeps blocking until its validity has run out, because its holder may not have noticed the loss yet.
    """
    if not hold.lose(why):
        return
    after = 0.0 if hold.given_up else hold.expires
    yield Orphan(hold.claim, abandon=hold.doubtful, graceful=hold.given_up, after=after)
    yield Lost(hold, why)


def drop_of(hold: Hold) -> Event:
    """The event for a hold whose last lease was garbage-collected unreleased."""
    data = {"taken_at": shown(hold.taken_at) or None}
    return Event("dropped", hold.name, hold.claim_id, hold.fence, data=data)


def _failed(hold: Hold, trouble: str) -> Event:
    return Event("renewal_failed", hold.claim.terms.name, hold.claim_id, hold.fence, data={"error": trouble})
