"""Self-deadlock: a thread or task must not wait for what it holds itself.

What it holds is known to its client; who stands in between, only to the store. A queue behind an own hold grows at its end
only, so one look at it, once the new claim stands there, decides for good.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, Literal

from lockkit import durations
from lockkit.errors import DeadlockDetected
from lockkit.facts import ClaimInfo, LockInfo
from lockkit.lease import Hold
from lockkit.names import claim_id
from lockkit.protocol.effects import Call, Effect, Now, Pause
from lockkit.queue import hopeless
from lockkit.spi import Claim, Refused, Terms, Unknown

__all__ = ["refuse", "told", "who_waits_for"]

_SECOND_LOOK = 0.1
"""Seconds between two looks. A claim that only tries may stand in a queue for a moment; what still stands there is in the way."""


def refuse(terms: Terms, mine: Sequence[Hold], who: str) -> None:
    """Refuse a wait that cannot end, as far as is known without asking the store.

    Args:
        terms: What is asked for.
        mine: Holds of the same name that the asking thread or task has.
        who: What asks: "thread" or "task".

    Raises:
        DeadlockDetected: It does not fit beside what the same thread or task holds.
    """
    if sum(hold.claim.terms.weight for hold in mine) + terms.weight <= terms.capacity:
        return
    instead = "use reentrant=True" if terms.kind == "mutex" else "take all that you need at once"
    raise DeadlockDetected(
        f"this {who} holds {terms.name!r} and would wait for itself",
        name=terms.name,
        hint=f"release it first, {instead}, or lease.detach() if another thread releases it",
    )


def who_waits_for(
    mine: Sequence[Hold], claim: Claim, now: Now, budget: Callable[[float], float]
) -> Generator[Effect, Any, ClaimInfo | Literal["nobody", "unknown"]]:
    """Look who, between a thread's or task's own holds and its new claim, cannot hold before it releases one of them.

    Args:
        mine: Its holds of the name.
        claim: The new one, which stands in the queue.
        now: CLOCK_BOOTTIME seconds.
        budget: Seconds that a request may take that is sent then.
    """
    seen = ""
    while True:
        at = now()
        try:
            info = yield Call("inspect", (claim.terms.name,), budget(at))
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
    """The error about somebody who stands in between.

    Args:
        claim: What was asked for.
        between: Who stands in between.
        who: What asks: "thread" or "task".
        wall: Seconds since the epoch.
    """
    name, waited = claim.terms.name, durations.show(max(wall - between.since, 0.0))
    wants = {"read": "to read", "write": "to write"}.get(
        between.kind, f"for {between.weight} of {between.capacity}"
    )
    return DeadlockDetected(
        f"this {who} holds {name!r} and would wait for itself: {between.owner} came first, has waited {wants} for {waited}, "
        f"and has to wait until this {who} releases",
        name=name,
        holder=between,
        hint="release it first, take all that you need at once, or lease.detach() if another thread releases it",
    )
