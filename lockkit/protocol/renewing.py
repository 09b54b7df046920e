"""Renew: one batch of heartbeats, and what a loss sets off.

A heartbeat speaks for a Lease: it carries that Lease's fence, or none while there is none. It never grants; OFFERED is
only a wake. An answer that comes after the hold has run out, or after it was ended, moves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol, TypeVar

from lockkit.facts import Event, Reason
from lockkit.hold import Hold
from lockkit.protocol.effects import Effect, Lost, Notify, Now, Orphan, Renew
from lockkit.store.spi import POLL_CAP, Beat, Refused, Renewal, Unknown

__all__ = ["Member", "batch", "due", "losing", "patience", "renewing", "waiter_interval"]

_SHARE = 3.0
"""A claim is renewed at a third of its own deadline."""
_REST = 4.0
"""Or when such a share of what is left of it is over."""
_LEAST = 0.05
"""Seconds that a renewal may take however little is left."""
_UNLIKE = 2.0
"""A call is cut no shorter than such a share of what each of its claims could wait for an answer."""


class Member(Protocol):
    """One claim in the heartbeat: a hold, or a claim that waits."""

    @property
    def beat(self) -> Beat:
        """The claim, with the fence of its hold."""

    @property
    def hold(self) -> Hold | None:
        """None while it waits."""

    def wake(self) -> None:
        """Tell the waiting side to ask again."""

    def missed(self) -> None:
        """Note that this renewal was not answered."""


M = TypeVar("M", bound=Member)


def due(basis: float, ttl: float, jitter: float, now: float) -> float:
    """When to renew a hold: a third of its ttl after its basis, up to a tenth of that earlier (``jitter`` in 0..1).

    But not before a quarter of what is left at ``now`` is over: a store may count from what it has long known, and then to
    ask again at once would tell the same.
    """
    share = 1.0 - 0.1 * jitter
    third, quarter = basis + ttl / _SHARE * share, now + (basis + ttl - now) / _REST * share
    return third if third > quarter else quarter  # noqa: FURB136 (without a call: each lock passes here)


def patience(hold: Hold | None, now: float, longest: float) -> float:
    """Seconds that the renewal of one claim may take: short enough to send it once more before its hold runs out.

    Args:
        hold: None for a claim that waits.
        now: CLOCK_BOOTTIME seconds.
        longest: Seconds that any call may take.
    """
    left = longest if hold is None else hold.expires - now
    if left <= 0 or hold is None:
        return longest
    return max(_LEAST, min(longest, left / 2))


def batch(members: Sequence[M], now: float, longest: float) -> tuple[list[M], list[M], float]:
    """Cut a batch off what is to be renewed: those in the greatest hurry, with all who can wait little longer.

    One call has one budget, the shortest of its claims: where a hold of a quarter of a second sits beside one of half a
    minute, its haste must not cost the other every answer that takes longer.

    Returns:
        Whom to send now, who is left for the next batch, and the budget of this one.
    """
    budgets = [patience(member.hold, now, longest) for member in members]
    budget = min(budgets)
    most = _UNLIKE * budget
    if max(budgets) <= most:
        return list(members), [], budget
    together = [member for member, own in zip(members, budgets, strict=True) if own <= most]
    others = [member for member, own in zip(members, budgets, strict=True) if own > most]
    return together, others, budget


def waiter_interval(waiter_deadline: float) -> float:
    """Seconds between the heartbeats of a waiting claim: a third of its deadline, at most the poll cap."""
    return min(POLL_CAP, waiter_deadline / _SHARE) if waiter_deadline > 0 else POLL_CAP


def renewing(
    members: Sequence[Member], now: Now, budget: float, renewed: Callable[[int], None]
) -> Generator[Effect, Any, bool]:
    """Send one batch; True if it was answered.

    Args:
        members: Whom to renew.
        now: CLOCK_BOOTTIME seconds.
        budget: Seconds the call may take.
        renewed: Told how many holds were renewed.
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
        if renewal is not last:  # most often one answer is that of many
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
            else:
                yield from losing(hold, hold.overdue(at) or "lost")
        else:
            # A store that counts for itself may be the first to say that its time is up.
            yield from losing(hold, why if why == "evicted" else hold.overdue(at) or why or "lost")
    renewed(count)
    return True


def losing(hold: Hold, why: Reason) -> Generator[Effect, Any, None]:
    """Declare a hold lost, once: tell, and have the claim removed in the background (S6, S11).

    Until its own validity has run out the claim goes on blocking: whoever held it is still finding out.
    """
    if not hold.lose(why):
        return
    after = 0.0 if hold.given_up else hold.expires
    yield Orphan(hold.claim, abandon=hold.doubtful, graceful=hold.given_up, after=after)
    yield Lost(hold, why)


def _failed(hold: Hold, trouble: str) -> Event:
    return Event("renewal_failed", hold.claim.terms.name, hold.claim_id, hold.fence, data={"error": trouble})
