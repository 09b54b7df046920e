"""Acquire: append a claim to the queue, wait until it may hold, and leave nothing behind after a failure.

Rules kept here:

- A token is in the queue once. After Lapsed the attempt queues again at the tail, with a new token.
- An UNKNOWN outcome is settled by sending the same request again, with ``create`` only while it is unknown.
- A grant that is read after its validity has run out is not used.
- After a claim that ended without a usable grant, the attempt pauses before it sends the next claim.
- One timeout covers the whole attempt.
- A thread or task never waits for itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from typing import Any

from lockkit.facts import Capabilities, Event
from lockkit.lib.namedtuples import made
from lockkit.protocol import cycles, deadlock, denials
from lockkit.protocol.attempt import Attempt, UnderWay
from lockkit.protocol.effects import (
    Abandon,
    Acquire,
    Effect,
    Notify,
    Now,
    Orphan,
    Pause,
    Release,
    WaitForWake,
    Withdraw,
)
from lockkit.protocol.hold import Hold
from lockkit.store.spi import Busy, Claim, Granted, Lapsed, Queued, Refused, Unknown
from lockkit.values.names import claim_id

__all__ = ["acquiring", "giving_up", "taking_back"]


def acquiring(
    attempt: Attempt,
    capabilities: Capabilities,
    now: Now,
    wall: Callable[[], float],
    random: Callable[[], float],
) -> Generator[Effect, Any, Hold | None]:
    """Acquire once.

    Returns:
        The hold, or None only on a definite "busy" (``wait=False``), or if ``attempt.then`` goes on after a
        failure. With a hold ``attempt.sent`` stays true until the caller, once responsible, clears it.

    Raises:
        AcquireTimeout, CapacityMismatch, DeadlockDetected, Drained: The background removes what is left.
        BackendError: The store kept failing; the background removes what may be left. Also raised if every
            grant ran out before it could be used.
    """
    terms, attempt.random = attempt.terms, random
    attempt.start = attempt.warn_at = now()
    if not attempt.wait:  # an attempt that does not queue lasts only as long as its requests
        attempt.deadline = attempt.start + attempt.request_timeout
    while True:
        if attempt.mine and attempt.wait:
            deadlock.refuse(terms, attempt.mine, attempt.who)
        token = os.urandom(16).hex() if attempt.token is None else attempt.token()
        attempt.claim = claim = made(Claim, (token, terms, attempt.wait, attempt.note))
        attempt.doubtful = False
        create = True
        unread: float | None = None  # when the first request without an answer was sent: perhaps a grant
        while True:
            before = now()
            if attempt.answered and attempt.timed_out(before):
                yield from giving_up(attempt, now)
                raise attempt.named(attempt.trouble or attempt.timeout(before, wall()))
            attempt.request_pending, was_sent, attempt.sent = True, attempt.sent, True
            budget = attempt.request_timeout if attempt.deadline is None else attempt.budget(before)
            try:
                answer = yield made(Acquire, (claim, create, budget))
            except (Refused, Unknown) as trouble:
                attempt.met(trouble, budget, before)
                if isinstance(trouble, Unknown):
                    attempt.doubtful = True
                    unread = before if unread is None else unread
                else:
                    attempt.sent = was_sent
                if (yield from _pause_or_give_up(attempt, trouble, now, wall)):
                    continue
                return None
            at = now()
            if isinstance(answer, Granted):
                sent_at = before if unread is None else unread  # an unread answer may have been this grant
                if answer.ttl is not None and answer.ttl != terms.ttl:
                    claim = attempt.claim = claim._replace(terms=terms._replace(ttl=answer.ttl))
                hold = Hold(
                    claim,
                    answer.fence,
                    answer.basis,
                    capabilities,
                    sent_at,
                    wall() - (at - sent_at),
                    attempt.doubtful,
                    attempt.auto_renew,
                    attempt.origin,
                    attempt.key,
                    attempt.taken_at,
                    attempt.reentrant,
                    attempt.where,
                )
                if at < hold.expires:  # the store cannot have ended the claim yet
                    return hold
                yield from giving_up(attempt, now)
                break
            attempt.heard(answer)
            if isinstance(answer, Queued):
                joined, create, unread, attempt.request_pending = create, False, None, False
                attempt.holder = answer.holder
                yield from _give_up_if_hopeless(attempt, claim, answer, now, wall, joined=joined)
                if not attempt.timed_out(at):
                    yield from attempt.report(answer, at)
                    wait = WaitForWake(
                        claim, answer.blockers, attempt.until(answer, at), answer.position, answer.holder
                    )
                    del answer  # each of a thousand waiters would keep it
                    yield wait
                continue
            if isinstance(answer, Busy):
                yield from _end_refused(attempt, answer, now)
                return None
            assert isinstance(answer, Lapsed)
            yield from _end_lapsed(attempt, answer, now)
            break
        yield from _begin_again(attempt, now, answer)


def taking_back(under_way: UnderWay) -> Generator[Effect, Any, bool]:
    """End an interrupted acquisition: withdraw its claims, for removal in the background. May be run again.

    Returns:
        Whether there was a claim to remove.
    """
    any_left = False
    for attempt in under_way.parts:
        leftover = attempt.leftover()
        if leftover is None:
            continue
        any_left = True
        if attempt.hold is not None:
            attempt.hold.end()
        yield Withdraw(leftover.claim)
        yield leftover
        attempt.sent = False
    return any_left


def _end_refused(attempt: Attempt, answer: Busy, now: Now) -> Generator[Effect, Any, None]:
    """End a claim that did not wait, and was refused; raise CapacityMismatch if the capacities differ."""
    attempt.sent = attempt.doubtful
    attempt.holder = answer.holder
    yield from giving_up(attempt, now)
    if answer.capacity is not None and answer.capacity != attempt.terms.capacity:
        raise attempt.mismatch(answer.capacity)


def _end_lapsed(attempt: Attempt, answer: Lapsed, now: Now) -> Generator[Effect, Any, None]:
    """End a claim that is in no queue any more; raise CapacityMismatch if a resize made it too heavy."""
    assert attempt.claim is not None
    yield Withdraw(attempt.claim)  # the next claim has a new token, so nobody needs to renew this one
    attempt.sent = attempt.doubtful
    yield from giving_up(attempt, now)
    if answer.why == "resized":
        raise attempt.mismatch(None)


def _pause_or_give_up(
    attempt: Attempt, trouble: Refused | Unknown, now: Now, wall: Callable[[], float]
) -> Generator[Effect, Any, bool]:
    """Pause before a failed request is sent again; give up if the failure is final, or lasts too long.

    Returns:
        Whether to go on; if not, the attempt after this one does.

    Raises:
        AcquireTimeout, BackendError: The attempt gives up, and so would the one after it.
    """
    if attempt.gives_up(trouble, now()):
        yield from giving_up(attempt, now)
        if attempt.then is not None and not attempt.then.gives_up(trouble, now()):
            return False
        told = attempt.trouble or (None if attempt.answered else trouble.error)
        try:
            raise attempt.named(told or attempt.timeout(now(), wall())) from None
        finally:
            del told, trouble  # else the error, and this frame in its traceback, would be a cycle
    yield from attempt.complain(trouble, now())
    yield Pause(attempt.next_try(now()))
    return True


def _give_up_if_hopeless(
    attempt: Attempt,
    claim: Claim,
    answer: Queued,
    now: Now,
    wall: Callable[[], float],
    *,
    joined: bool,
) -> Generator[Effect, Any, None]:
    """Give up a wait that can never end in a grant. ``joined``: the claim has just come into the queue.

    Raises:
        CapacityMismatch: Others use the name with another capacity.
        DeadlockDetected: The thread or task would wait for itself, or is the youngest in a deadlock.
    """
    # Later only a resize, perhaps a half done one, makes the two differ; this claim's capacity follows.
    if joined and answer.capacity != attempt.terms.capacity:
        yield from giving_up(attempt, now)
        raise attempt.mismatch(answer.capacity)
    if attempt.mine:
        between = yield from attempt.deadlocked(claim, now)
        if between is not None:
            yield from giving_up(attempt, now)
            raise deadlock.told(claim, between, attempt.who, wall())
    found = yield from attempt.searched(claim, now)
    if found is not None:
        attempt.ended_deadlock = True
        yield from giving_up(attempt, now)
        raise cycles.error(claim, found, attempt.who)


def giving_up(attempt: Attempt, now: Now, *, asks: bool = True) -> Generator[Effect, Any, bool]:
    """Remove the claim, for which nobody got a lease: here if there is time, else in the background.

    Args:
        attempt: The attempt to end; its hold, if it has one, is no longer valid from here on.
        now: CLOCK_BOOTTIME seconds.
        asks: Whether to try in the foreground at all.

    Returns:
        Whether the store has said that the claim is gone.
    """
    if not attempt.sent or attempt.claim is None:
        return True
    if attempt.hold is not None:
        attempt.hold.end()
    yield Withdraw(attempt.claim)
    budget = attempt.last_call(now()) if asks else 0.0
    if budget > 0:
        remove = Abandon if attempt.doubtful else Release
        try:
            yield remove(attempt.claim, budget, "unused")
        except (Refused, Unknown):
            pass
        else:
            attempt.sent = False
            return True
    yield Orphan(attempt.claim, abandon=attempt.doubtful, how="unused")
    attempt.sent = False
    return False


def _begin_again(attempt: Attempt, now: Now, answer: Granted | Lapsed) -> Generator[Effect, Any, None]:
    """Pause before the next claim: the cause that ended the last one may end it as well.

    Args:
        attempt: The attempt that goes on.
        now: CLOCK_BOOTTIME seconds.
        answer: How the claim ended: Lapsed, or a grant that ran out before it could be used.

    Raises:
        BackendUnavailable: For too long, every grant has run out before it could be used.
    """
    assert attempt.claim is not None
    at, trouble = now(), denials.useless(attempt.terms, answer, waits=attempt.wait)
    if trouble is not None:
        attempt.unusable(trouble, at)
        if attempt.only_unusable_answers(at):
            raise attempt.named(trouble)
    why = answer.why if isinstance(answer, Lapsed) else "over"
    yield Notify(Event("requeued", attempt.terms.name, claim_id(attempt.claim.token), reason=why))
    yield Pause(attempt.next_claim(at))
