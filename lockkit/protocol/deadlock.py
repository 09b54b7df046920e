"""Self-deadlock: a thread or task must not wait for what it holds itself.

The client knows the holds of a thread or task; only the store knows which claims are between those holds and
a new claim. A queue grows only at its tail: one answer, once the new claim is in the queue, stays true.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, Literal

from lockkit.errors import DeadlockDetected
from lockkit.facts import ClaimInfo, LockInfo
from lockkit.lib.caller import shown
from lockkit.protocol.effects import Effect, Inspect, Now, Pause
from lockkit.protocol.hold import Hold
from lockkit.store.queue import hopeless
from lockkit.store.spi import Claim, Refused, Terms, Unknown
from lockkit.values import durations
from lockkit.values.names import claim_id

__all__ = ["refuse", "told", "who_waits_for"]

_SECOND_LOOK = 0.1
"""Seconds between two looks at the queue. Only a claim that both find counts: a try is there for a moment."""

_DETACH = (
    "call lease.detach() right after the acquire, if another task or thread releases it: "
    "a thread of a pool (asyncio.to_thread) may acquire for many"
)
"""The advice for a lease that another thread or task will release."""


def refuse(terms: Terms, mine: Sequence[Hold], who: str) -> None:
    """Refuse a wait that cannot end, as far as the client knows without asking the store.

    Args:
        terms: The terms of the new claim.
        mine: Holds of the same name that the acquiring thread or task has.
        who: "thread" or "task", for the message.

    Raises:
        DeadlockDetected: The new claim does not fit beside the holds of the same thread or task.
    """
    if sum(hold.claim.terms.weight for hold in mine) + terms.weight <= terms.capacity:
        return
    reads = terms.kind == "write" and any(hold.claim.terms.kind == "read" for hold in mine)
    if reads:
        instead = "take write() from the start (with reentrant=True it may also read)"
    else:
        instead = "take all that you need at once" if terms.kind == "semaphore" else "use reentrant=True"
    how, why = (" for reading", ": a reader cannot become a writer") if reads else ("", "")
    where = next((f", acquired at {shown(hold.taken_at)}," for hold in mine if hold.taken_at is not None), "")
    raise DeadlockDetected(
        f"this {who} holds {terms.name!r}{how}{where} and would wait for itself{why}",
        name=terms.name,
        hint=f"release it first, {instead}, or {_DETACH}",
    )


def who_waits_for(
    mine: Sequence[Hold], claim: Claim, now: Now, budget: Callable[[float], float]
) -> Generator[Effect, Any, ClaimInfo | Literal["nobody", "unknown"]]:
    """Find a claim that makes a thread or task wait for itself.

    Such a claim is between the holds of the thread or task and its new claim, and cannot hold before them.

    Args:
        mine: The holds of the name that the thread or task has.
        claim: The new claim, which is in the queue.
        now: CLOCK_BOOTTIME seconds.
        budget: Seconds that a request may take, by the time at which it is sent.
    """
    seen = ""
    while True:
        at = now()
        try:
            info = yield Inspect(claim.terms.name, budget(at))
        except (Refused, Unknown):
            return "unknown"
        between = _between(mine, claim_id(claim.token), info)
        if between is None:
            return "nobody"
        if between.claim_id == seen:
            return between
        seen = between.claim_id
        yield Pause(now() + _SECOND_LOOK)


def _between(mine: Sequence[Hold], asks: str, info: LockInfo) -> ClaimInfo | None:
    queue = info.claims
    place = next((at for at, claim in enumerate(queue) if claim.claim_id == asks), None)
    if place is None:
        return None
    own = {hold.claim_id for hold in mine if hold.standing}
    waits = [claim.state in ("WAITING", "OFFERED") for claim in queue]
    at = hopeless(queue, [claim.claim_id in own for claim in queue], waits, place)
    return None if at is None else queue[at]


def told(claim: Claim, between: ClaimInfo, who: str, wall: float) -> DeadlockDetected:
    """The error for a wait behind a claim that itself waits for the same thread or task.

    Args:
        claim: The new claim.
        between: The claim between the two.
        who: "thread" or "task", for the message.
        wall: Seconds since the epoch.
    """
    name, waited = claim.terms.name, durations.show(max(wall - between.since, 0.0))
    wants = {"read": "to read", "write": "to write"}.get(
        between.kind, f"for {between.weight} of {between.capacity}"
    )
    return DeadlockDetected(
        f"this {who} holds {name!r} and would wait for itself: "
        f"{between.owner} came first, has waited {wants} for {waited}, "
        f"and has to wait until this {who} releases",
        name=name,
        holder=between,
        hint=f"release it first, take all that you need at once, or {_DETACH}",
    )
