"""The decisions of recovery: from what was seen of one claim to what may be done about it. All functions are pure.

Every doubt speaks for the holder. A claim is removed at once (like ``lockkit evict --now``; for a dead owner this is safe) only if its
owner is proved to be dead. A claim is evicted, which waits until its holder has stopped, only if it is older than ``age_soft``, and
without a renewal for two thirds of its ttl, and neither this host nor an oracle sees its owner alive. A holder that lives keeps its lock,
however old the hold is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from lockkit.facts import ClaimInfo, Keeper
from lockkit.lib.namedtuples import NamedTuple
from lockkit.store.judging import NOBODY
from lockkit.values import durations

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Action",
    "Beat",
    "ClaimFacts",
    "Decision",
    "Kind",
    "OracleAnswer",
    "Tier",
    "Tiers",
    "answer_of_this_host",
    "asks_oracles",
    "counted",
    "decide",
    "heartbeat",
    "life",
    "same_claim",
    "tier_of",
    "within_limit",
]

Action = Literal["remove", "evict", "tell", "leave"]
"""Remove the claim at once, because its owner is dead; evict it, so that its holder may still stop by itself; tell a person to look; or
leave it alone."""
Kind = Literal["", "gone", "survivors", "silent", "overdue"]
"""The reason: the owner is gone; the owner is gone, but processes work on under its lock; the claim is not renewed; or the hold is old."""
Beat = Literal["live", "missed", "unknown"]
Tier = Literal["", "warning", "soft", "hard"]
_RANK: Mapping[Tier, int] = {"": 0, "warning": 1, "soft": 2, "hard": 3}
HOUR = 3600.0
_AHEAD = 60.0
"""Seconds by which another host's clock may be ahead; no later time is believed."""
_BEATS = 3
"""Heartbeats in a ttl; one that is late may still come, so two have to be missing."""


class Tiers(NamedTuple):
    """The ages, in seconds, at which a hold earns a warning, becomes suspicious, and is too old."""

    warning: float = 300.0
    soft: float = 600.0
    hard: float = 900.0


class OracleAnswer(NamedTuple):
    """The word of one oracle on an owner: it lives, it is dead, or (None) that cannot be told."""

    oracle: str
    alive: bool | None
    told: str = ""
    failed: bool = False
    """Whether the oracle gave no answer: it raised, was late, or said something else. It might have known that the owner lives."""

    def __str__(self) -> str:
        word = {True: "alive", False: "dead", None: "cannot tell"}[self.alive]
        return f"{self.oracle}: {word}" + (f" ({self.told})" if self.told else "")


class ClaimFacts(NamedTuple):
    """The facts that were seen of one claim."""

    claim: ClaimInfo
    at: float
    """The time of the look, on the clock by which the store wrote the claim's times."""
    answers: tuple[OracleAnswer, ...] = ()
    survivors: tuple[Keeper, ...] = ()
    """Processes that work on under the claim, although its owner has ended."""
    hidden: str = ""
    """The reason for which processes of the owner's user could not be looked at; empty if they were."""

    @property
    def evidence(self) -> Mapping[str, object]:
        """The facts for the audit record."""
        claim = self.claim
        return {
            "state": claim.state,
            "owner": str(claim.owner),
            "age_seconds": round(self.at - claim.since, 3),
            "renewed_seconds_ago": round(self.at - claim.renewed, 3) if claim.renewed else None,
            "heartbeat": heartbeat(claim, self.at),
            "answers": [str(answer) for answer in self.answers],
            "survivors": [str(keeper) for keeper in self.survivors],
        }


class Decision(NamedTuple):
    """The action that is allowed on a claim, and the reason, in a sentence."""

    action: Action = "leave"
    kind: Kind = ""
    why: str = ""
    tier: Tier = ""


def answer_of_this_host(claim: ClaimInfo) -> OracleAnswer:
    """Say what this host and the store know of a claim's owner, as ``inspect`` has judged it (:mod:`lockkit.store.judging`).

    A stopped process lives: it may go on at any moment.
    """
    if claim.process == "stopped":
        return OracleAnswer("this host", True, claim.evidence)
    return OracleAnswer("this host", claim.alive, claim.evidence)


def life(answers: Sequence[OracleAnswer]) -> bool | None:
    """Whether an owner lives. One oracle that says so outweighs all others; it is dead only if one says so and none contradicts."""
    if any(answer.alive is True for answer in answers):
        return True
    return False if any(answer.alive is False for answer in answers) else None


def heartbeat(claim: ClaimInfo, at: float) -> Beat:
    """Whether a claim is renewed as it should be.

    Missed means that two of three heartbeats have not arrived; unknown that the store does not say, or that there are none.
    """
    if claim.process_bound:
        return "live" if claim.alive else "unknown"
    if not claim.renewed or claim.ttl <= 0:
        return "unknown"
    return "live" if at - claim.renewed <= claim.ttl * (_BEATS - 1) / _BEATS else "missed"


def tier_of(age: float, tiers: Tiers) -> Tier:
    """The highest age that a hold has reached."""
    reached: Tier = ""
    for tier in ("warning", "soft", "hard"):
        if age >= getattr(tiers, tier):
            reached = tier
    return reached


def asks_oracles(claim: ClaimInfo, at: float) -> bool:
    """Whether to ask the oracles of plugins about an owner, which may cost a request to another service.

    They are not asked about an owner that this host sees alive, or whose heartbeat arrives. They are asked about one that looks dead from
    here, so that each of them can contradict.
    """
    mine = answer_of_this_host(claim).alive
    return not _nobody(claim) and mine is not True and (mine is False or heartbeat(claim, at) != "live")


def decide(seen: ClaimFacts, tiers: Tiers) -> Decision:
    """Decide what may be done about a claim."""
    claim = seen.claim
    if claim.state == "LINGERING" or _nobody(claim):
        # min_hold, lock_delay, or the ttl of `lockkit acquire` was asked for, so the claim stays until that ends.
        return Decision()
    lives = life(seen.answers)
    tier = tier_of(seen.at - claim.since, tiers) if claim.state == "HELD" else ""
    kept = (*claim.kept_by, *seen.survivors)
    if kept:
        who = ", ".join(dict.fromkeys(map(str, kept)))
        pids = list(dict.fromkeys(str(one.pid) for one in kept))
        end = f"to end {'it' if len(pids) == 1 else 'them'}: kill {' '.join(pids)}"
        why = f"its owner has ended, but these processes work on: {who}; {end}"
        return Decision("tell", "survivors", why, tier)
    if lives is False:
        told = "; ".join(answer.told or answer.oracle for answer in seen.answers if answer.alive is False)
        doubt = seen.hidden or _unheard(seen)
        if doubt:
            return Decision("tell", "gone", f"its owner is gone ({told}), but {doubt}", tier)
        return Decision("remove", "gone", f"its owner is gone: {told}", tier)
    if claim.state != "HELD" or claim.evicted or not tier:
        return Decision()
    age = durations.show(round(seen.at - claim.since))
    if lives is None and heartbeat(claim, seen.at) == "missed":
        silent = durations.show(round(seen.at - claim.renewed))
        why = f"it has been held for {age}, and was last renewed {silent} ago"
        return Decision("evict" if _RANK[tier] >= _RANK["soft"] else "tell", "silent", why, tier)
    return Decision("tell", "overdue", f"it has been held for {age}, and its owner may well be at work", tier)


def same_claim(first: ClaimInfo, now: ClaimInfo, action: str) -> bool:
    """Whether a claim is still as it was seen, so that an action on it still stands.

    An eviction stands on missing heartbeats: one that has arrived since forbids it. The times of etcd are of whole seconds, so a renewal
    counts from a third of the ttl on; two thirds were missing.
    """
    same = (first.claim_id, first.state, first.fence) == (now.claim_id, now.state, now.fence)
    return same and (action != "evict" or now.renewed - first.renewed < first.ttl / _BEATS)


def _unheard(seen: ClaimFacts) -> str:
    """The oracles that failed to answer, in words, where only another oracle says that the owner is dead; empty if there are none."""
    if answer_of_this_host(seen.claim).alive is False:
        return ""
    failed = [f"{answer.oracle} ({answer.told})" for answer in seen.answers if answer.failed]
    return f"no answer came from {', '.join(failed)}" if failed else ""


def counted(listed: object, now: float) -> list[float]:
    """The times of the last hour in a record that any program may have written; anything else in it is left out."""
    if not isinstance(listed, list):
        return []
    times = [at for at in listed if isinstance(at, (int, float)) and not isinstance(at, bool)]
    # False for NaN, and exact for any int.
    return [float(at) for at in times if now - HOUR < at <= now + _AHEAD]


def within_limit(times: Sequence[float], now: float, limit: int) -> bool:
    """Whether another action is allowed, after those at these times. A time in the future counts, because clocks differ."""
    return sum(now - at < HOUR for at in times) < limit


def _nobody(claim: ClaimInfo) -> bool:
    """Whether no process has to live for the claim: ``lockkit acquire`` made it."""
    return claim.evidence == NOBODY or bool(claim.note.get("acquire"))
