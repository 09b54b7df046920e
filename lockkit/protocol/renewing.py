"""Renew: one batch of heartbeats, and the steps after a loss.

A heartbeat renews a claim for its Lease and carries that Lease's fence, if there is one. It never grants: the
answer OFFERED only wakes the waiter. An answer after the end of the hold changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from math import inf
from typing import Any, Protocol, TypeAlias, TypeVar

from lockkit.facts import Event, Reason
from lockkit.lib.caller import shown
from lockkit.protocol.effects import Asked, Effect, Lost, Notify, Now, Orphan, Renew
from lockkit.protocol.hold import Hold
from lockkit.store.spi import POLL_CAP, Claim, Refused, Renewal, Unknown

__all__ = [
    "Member",
    "Waiting",
    "batch",
    "drop_of",
    "due",
    "losing",
    "patience",
    "renewing",
    "waiter_interval",
]

_SHARE = 3.0
"""A claim is renewed when this part (a third) of its ttl has passed since its basis."""
_REST = 4.0
"""But no sooner than when this part (a quarter) of the remaining time has passed."""
_LEAST = 0.05
"""Seconds that a renewal may take at least, even if less time is left."""
_UNLIKE = 2.0
"""The longest budget of a batch is at most this many times the shortest."""


class Waiting(Protocol):
    """One claim in the heartbeat that waits."""

    @property
    def claim(self) -> Claim:
        """The claim."""

    @property
    def unanswered(self) -> int:
        """How many renewals of the claim had no answer."""

    def wake(self) -> None:
        """Make the waiting thread ask the store again."""

    def missed(self) -> None:
        """Note that a renewal was not answered."""


Member: TypeAlias = Hold | Waiting
"""One claim in the heartbeat."""
M = TypeVar("M", bound=Member)


def due(basis: float, ttl: float, jitter: float, now: float) -> float:
    """When to renew a hold: a third of its ttl after its basis, up to a tenth earlier (``jitter`` in 0..1).

    At least a quarter of the remaining time must pass from ``now``: a store may report an old basis, such as
    that of a session that is renewed for all its claims, and asking again at once would change nothing.
    """
    share = 1.0 - 0.1 * jitter
    third, quarter = basis + ttl / _SHARE * share, now + (basis + ttl - now) / _REST * share
    return third if third > quarter else quarter  # noqa: FURB136 (without a call: each lock passes here)


def patience(hold: Hold | None, now: float, longest: float) -> float:
    """Seconds that a claim's renewal may take, so that another one fits in before the hold runs out.

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

    The most urgent come first: a store without time for all leaves out the last, which come first next time.
    A batch has one budget, the shortest of its claims. A hold with a ttl of 0.25 s would make the renewal of
    one with 30 s fail whenever the store takes longer than the short hold can wait.

    Returns:
        The members to renew now, those left for the next batch, and the budget of this batch.
    """
    expires = [member.expires if isinstance(member, Hold) else inf for member in members]
    first = min(expires)
    if first > now:
        # Then a claim that ends later has a longer budget: two of ten thousand show whether all go together.
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
    """Members in order of expiry; then the claims that wait, those with most missed renewals first."""
    if inf in expires:
        ranks = [
            (end, 0 if isinstance(member, Hold) else -member.unanswered)
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
    beats = [(member.claim, member.fence if isinstance(member, Hold) else None) for member in members]
    try:
        renewals = yield Renew(beats, budget)
    except (Refused, Unknown) as trouble:
        for member in members:
            yield from _unanswered(member, str(trouble))
        return False
    at = now()
    count = 0
    state, basis, requests, why, unknown = last = Renewal("UNKNOWN")
    for member, renewal in zip(members, renewals, strict=True):
        if renewal is not last:  # many members often share one answer object
            last = renewal
            state, basis, requests, why, unknown = renewal
        if state == "UNKNOWN":
            yield from _unanswered(member, unknown)
        elif not isinstance(member, Hold):
            if state != "WAITING":
                member.wake()
        elif state == "HELD":
            member.requests = requests
            if member.renewed(basis, at):
                count += 1
                if requests is not None and (new := member.asked.heard(requests)):
                    yield Asked(member, new)
            else:
                yield from losing(member, member.overdue(at) or "lost")
        else:
            # The store's clock may reach max_hold or the deadline before ours does.
            yield from losing(member, why if why == "evicted" else member.overdue(at) or why or "lost")
    renewed(count)
    return True


def losing(hold: Hold, why: Reason) -> Generator[Effect, Any, None]:
    """Declare a hold lost, once: report the loss, and have the claim removed in the background (S6, S11).

    The claim blocks until its validity has run out, because its holder may not have noticed the loss yet.
    """
    if not hold.lose(why):
        return
    if hold.given_up:
        yield Orphan(hold.claim, abandon=hold.doubtful, how="released")
    else:
        yield Orphan(hold.claim, abandon=hold.doubtful, how="ungraceful", after=hold.expires)
    yield Lost(hold, why)


def drop_of(hold: Hold) -> Event:
    """The event for a hold whose last lease was garbage-collected unreleased."""
    data = {"taken_at": shown(hold.taken_at) or None, "ttl": hold.ttl}
    return Event("dropped", hold.name, hold.claim_id, hold.fence, data=data)


def _unanswered(member: Member, trouble: str) -> Generator[Effect, Any, None]:
    """Report an unanswered renewal. A hold lasts until its ttl is over; a waiter counts the renewal."""
    if not isinstance(member, Hold):
        member.missed()
    elif not member.ended:
        yield Notify(
            Event("renewal_failed", member.name, member.claim_id, member.fence, data={"error": trouble})
        )
