"""The line that a terminal shows while a request waits for cards: short, most important first. No I/O."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from lockkit.facts import ClaimInfo
from lockkit.gpu.card_denials import Seen
from lockkit.gpu.choosing import CardFacts, left_over, why_not_now
from lockkit.gpu.joining import ends_at
from lockkit.gpu.states import STATES, Card
from lockkit.gpu.words import alike, how_many, together, until_words
from lockkit.lib.printable import printable
from lockkit.values import durations

__all__ = ["waiting_row"]

_DAY = 86_400.0
_SHORT = 20
"""Characters of a reason."""


def waiting_row(
    seen: Seen | None,
    count: int,
    place: str,
    waited: float,
    local: Callable[[float], time.struct_time] = time.localtime,
) -> str:
    """A waiting request in one line: ``waiting 80 s for 2 GPUs: you are 3rd; GPU 0 held by ann since 14:02``.

    Cards in the same state share a phrase.

    Args:
        seen: The last look; None if nothing can be said about the cards.
        count: The number of cards that are asked for.
        place: The place in the queue, in words.
        waited: Seconds that the request has waited.
        local: The local time, of seconds since the epoch.
    """
    head = f"waiting {durations.show(int(waited))} for {how_many(count)}: you are {place}"
    if seen is None:
        return f"{head}; the GPUs cannot be seen now"
    states = ((card.device, _state(seen, card, facts, local)) for card, facts in seen.possible())
    told = ", ".join(f"{together(devices)} {state}" for state, devices in alike(states).items())
    return f"{head}; {told}" if told else head


def _state(seen: Seen, card: Card, facts: CardFacts, local: Callable[[float], time.struct_time]) -> str:
    uuid = card.device.uuid
    if uuid in seen.kept:
        return "got"
    if facts.quarantine:
        return STATES["quarantined"]
    if facts.holders and card.state != "faulty":
        return _held(facts.holders, seen.snapshot.taken, local)
    if why_not_now(seen.request, card, facts, seen.snapshot.taken) is None:
        return "not well" if uuid in seen.failed else STATES["free"]
    if left_over(card) and facts.receipt is not None and facts.receipt.outcome != "clean":
        return STATES["dirty"]
    if card.state == "busy":
        return STATES["busy"] + _users(card)
    return "too full" if card.state == "free" else STATES[card.state]


def _held(holders: Sequence[ClaimInfo], now: float, local: Callable[[float], time.struct_time]) -> str:
    first, *more = holders
    who = first.owner.user or first.owner.program or f"pid {first.owner.pid}"
    if more:
        return printable(f"shared by {who} and {len(more)} more")
    at = local(first.since)
    since = time.strftime("%H:%M" if now - first.since < _DAY else "%d %b", at)
    end = ends_at(first)
    since += "" if end is None else f" {until_words(end, now, local)}"
    why = f" ({first.reason[:_SHORT]})" if first.reason else ""
    stopped = ", stopped" if first.process == "stopped" else ""
    asked = ", asked to release" if first.release_requests else ""
    return printable(f"held by {who} since {since}{why}{stopped}{asked}")


def _users(card: Card) -> str:
    """The programs that compute on a card, by user: ``: bob's python``."""
    found = dict.fromkeys(
        " ".join(filter(None, (one.user and f"{one.user}'s", one.program)))
        for one in card.device.processes or ()
    )
    first, *more = [one for one in found if one] or [""]
    return printable(f": {first}{f' and {len(more)} more' if more else ''}") if first else ""
