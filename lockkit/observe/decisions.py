"""The decisions of recovery: from the facts about one claim to the action allowed. All functions are pure.

Doubt favours the holder. A claim is removed at once (like ``lockkit evict --now``; safe for a dead owner)
only if its owner is proved dead. A claim is evicted, which waits until its holder has stopped, only if it is
older than ``age_soft`` and unrenewed for two thirds of its ttl, and neither this host nor an oracle sees its
owner alive. A living holder keeps its lock, however old the hold is.
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
"""Remove the claim at once, because its owner is dead; evict it, so that its holder may still stop by itself;
report it to a person; or leave it alone."""
Kind = Literal["", "gone", "survivors", "silent", "overdue"]
"""The owner is gone; gone, but processes work on under its lock; no renewals arrive; or the hold is old."""
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
    """The answer of one oracle about an owner: alive, dead, or (None) unknown."""

    oracle: str
    alive: bool | None
    told: str = ""
    failed: bool = False
    """Whether the oracle raised, was late, or answered nonsense; it might have known that the owner lives."""

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
    """This host's judgement of a claim's owner (:mod:`lockkit.store.judging`); a stopped process lives."""
    if claim.process == "stopped":
        return OracleAnswer("this host", True, claim.evidence)
    return OracleAnswer("this host", claim.alive, claim.evidence)


def life(answers: Sequence[OracleAnswer]) -> bool | None:
    """Whether an owner lives: True if any oracle says so; False if one says dead and none says alive."""
    if any(answer.alive is True for answer in answers):
        return True
    return False if any(answer.alive is False for answer in answers) else None


def heartbeat(claim: ClaimInfo, at: float) -> Beat:
    """Whether heartbeats arrive: ``missed`` if two of three have not, ``unknown`` if nothing says."""
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

    Yes if it looks dead from here, as oracles may contradict, or if it is not visible and lacks heartbeats.
    """
    mine = answer_of_this_host(claim).alive
    return not _nobody(claim) and mine is not True and (mine is False or heartbeat(claim, at) != "live")


def decide(seen: ClaimFacts, tiers: Tiers) -> Decision:
    """Decide what may be done about a claim."""
    claim = seen.claim
    if claim.state == "LINGERING" or _nobody(claim):
        # Somebody asked for min_hold, lock_delay, or the ttl of `lockkit acquire`: the claim stays so long.
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
    """Whether a claim is unchanged since it was seen, so that an action on it is still justified.

    A heartbeat newer by a third of the ttl (etcd counts whole seconds) forbids an eviction.
    """
    same = (first.claim_id, first.state, first.fence) == (now.claim_id, now.state, now.fence)
    return same and (action != "evict" or now.renewed - first.renewed < first.ttl / _BEATS)


def _unheard(seen: ClaimFacts) -> str:
    """The oracles that gave no answer, in words, if only another oracle calls the owner dead; else empty."""
    if answer_of_this_host(seen.claim).alive is False:
        return ""
    failed = [f"{answer.oracle} ({answer.told})" for answer in seen.answers if answer.failed]
    return f"no answer came from {', '.join(failed)}" if failed else ""


def counted(listed: object, now: float) -> list[float]:
    """The times of the last hour in a record that any program may have written; all else is ignored."""
    if not isinstance(listed, list):
        return []
    times = [at for at in listed if isinstance(at, (int, float)) and not isinstance(at, bool)]
    # False for NaN, and exact for any int.
    return [float(at) for at in times if now - HOUR < at <= now + _AHEAD]


def within_limit(times: Sequence[float], now: float, limit: int) -> bool:
    """Whether another action is allowed after those at ``times``. Future times count: clocks differ."""
    return sum(now - at < HOUR for at in times) < limit


def _nobody(claim: ClaimInfo) -> bool:
    """Whether no process has to live for the claim: ``lockkit acquire`` made it."""
    return claim.evidence == NOBODY or bool(claim.note.get("acquire"))
