"""Sentences about what an intervention will do, for people who confirm it first."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, TypeAlias

from lockkit.protocol.denials import because
from lockkit.values import durations

if TYPE_CHECKING:
    from lockkit.facts import ClaimInfo, LockInfo

__all__ = ["Act", "consequences"]

Act: TypeAlias = Literal["evict", "ask-release"]


def consequences(
    act: Act,
    info: LockInfo,
    claim: ClaimInfo,
    now: float,
    clock: Callable[[float], str],
    *,
    at_once: bool = False,
) -> list[str]:
    """Sentences about what an intervention will do. The first one asks whether to do it.

    ``clock`` writes a time, in seconds since the epoch, for the reader.
    """
    waits = claim.state in ("WAITING", "OFFERED")
    since = f"{'has waited' if waits else 'has held it'} for {durations.show(max(now - claim.since, 0.0))}"
    told = [
        f"{'Evict' if act == 'evict' else 'Ask the holder of'} claim {claim.claim_id} of {claim.name!r}?",
        f"{claim.owner} {since}{because(claim)}.",
    ]
    if act == "ask-release":
        told.append(
            "Nothing is forced. The holder hears of the request with its next renewal, within "
            f"{durations.show(claim.ttl / 3)}, and may go on."
        )
    elif waits:
        told.append("It is removed from the queue. Its process queues again, at the end, unless it ends.")
    else:
        told += _of_a_holder(info, claim, clock, at_once=at_once)
    return [
        *told,
        (
            f"Only this claim is {'evicted' if act == 'evict' else 'asked'}: if another has the lock by "
            "then, nothing happens to that one."
        ),
    ]


def _of_a_holder(
    info: LockInfo, claim: ClaimInfo, clock: Callable[[float], str], *, at_once: bool
) -> list[str]:
    count = len(info.waiters)
    behind = {0: "Nobody waits for it", 1: "The one that waits gets it"}.get(
        count, f"The first of the {count:,} that wait gets it"
    )
    fence = (
        f"Its fence {claim.fence} stays its own, and the next holder gets a higher one: what checks fences "
        "refuses its late writes."
    )
    if at_once:
        return [
            (
                f"The claim is removed at once, with what is left of its ttl and min_hold. {behind}, "
                "although the holder may still work."
            ),
            (
                f"The holder learns of its loss with its next renewal, within "
                f"{durations.show(claim.ttl / 3)}. Until then two may work at once."
            ),
            fence,
        ]
    until = "" if claim.deadline is None else f", at {clock(claim.deadline)} at the latest"
    return [
        (
            f"The holder is told that its lock is lost. {behind}; the lock is free only when the holder must "
            f"have stopped{until}."
        ),
        (
            f"Its ttl of {durations.show(claim.ttl)} is not renewed any more; a min_hold that is not over "
            "yet still blocks the lock."
        ),
        fence,
    ]
