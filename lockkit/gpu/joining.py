"""The state of each card, from what its driver says and what the store knows of it. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lockkit.facts import ClaimInfo
from lockkit.gpu.choosing import left_over
from lockkit.gpu.devices import Device, DeviceProcess, Snapshot
from lockkit.gpu.known import NOTHING_KNOWN, Known
from lockkit.gpu.states import Card, State, cards
from lockkit.gpu.usage import Use, use_of, use_words
from lockkit.gpu.words import how_many, process_words, until_words, users_of
from lockkit.lib.noted import number
from lockkit.lib.printable import printable
from lockkit.values import durations
from lockkit.values.sizes import show

__all__ = ["by_store", "ends_at", "holder_words", "joined", "request_words", "unasked"]


_NOTHING: Mapping[str, Use] = {}
_LONGEST = 10 * 365 * 86_400.0
"""Seconds of a hold. A longer one is a stranger's mistake."""
_NOBODY: Mapping[str, tuple[DeviceProcess, ...]] = {}


def joined(
    snapshot: Snapshot,
    known: Mapping[str, Known],
    uses: Mapping[str, Use] = _NOTHING,
    unlocked: Mapping[str, tuple[DeviceProcess, ...]] = _NOBODY,
) -> tuple[Card, ...]:
    """All cards of a snapshot, in its order.

    A card that is quarantined or faulty is shown as such also while it is held, with its holders among the
    reasons. What computes on a held card counts as its holder's, unless it is known to work for none of them.

    Args:
        snapshot: The snapshot.
        known: What the store knows of the cards, by UUID.
        uses: The use that holders make of their cards, by claim id. For the others, their last report counts.
        unlocked: The processes on held cards that work for no holder, by UUID.
    """
    marks = {uuid: one.quarantine for uuid, one in known.items() if one.quarantine is not None}
    found: list[Card] = []
    for card in cards(snapshot, marks):
        of_store = known.get(card.device.uuid, NOTHING_KNOWN)
        holders = of_store.holders
        told = tuple(
            holder_words(one, snapshot.taken, uses.get(one.claim_id), of_store.more.get(one.claim_id, 0))
            for one in holders
        )
        strange = unlocked.get(card.device.uuid, ()) if holders else card.device.processes or ()
        left, made = of_store.receipt, card
        if holders and card.state in ("quarantined", "faulty", "sliced"):
            made = card._replace(reasons=(*card.reasons, *told))
        elif holders:
            state = _held_or_shared(holders)
            made = Card(card.device, state, (*told, *_without_lock(card.device, state, strange)))
        elif left_over(card) and left and left.outcome != "clean":
            made = Card(card.device, "dirty", (str(left), *card.reasons))
        found.append(_with_people(made, of_store)._replace(unmanaged=users_of(strange)))
    return tuple(found)


def _with_people(card: Card, of_store: Known) -> Card:
    """A card with the users who hold it, and the number of claims that wait for it."""
    users = dict.fromkeys(printable(one.owner.user) for one in of_store.holders if one.owner.user)
    return card._replace(users=tuple(users), waiting=len(of_store.waiters))


def _without_lock(device: Device, state: State, foreign: Sequence[DeviceProcess]) -> tuple[str, ...]:
    """The use of a held card by no holder: processes without a lock, and memory of no visible process."""
    told = [f"and without a lock: {process_words(one)}" for one in foreign]
    sizes = [one.memory for one in device.processes or ()]
    if state == "shared" and device.used is not None and device.processes is not None and None not in sizes:
        stray = device.used - sum(size or 0 for size in sizes)
        if stray > device.tolerated:
            told.append(f"and {show(stray)} in use by no process that is seen")
    return tuple(told)


def unasked(snapshot: Snapshot) -> tuple[Card, ...]:
    """All cards of a snapshot while the store does not answer: none is free, and use may be the holder's."""
    return tuple(
        Card(card.device, "unknown", ("who holds it is unknown", *card.reasons))
        if card.state in ("free", "busy")
        else card
        for card in cards(snapshot)
    )


def by_store(device: Device, known: Known, now: float) -> Card:
    """A card of another host, whose state is what the store knows of it.

    Args:
        device: The card, without what only its driver knows.
        known: The facts that the store has about it.
        now: The time, in seconds since the epoch.
    """
    holders = known.holders
    used = [use_of(one).used for one in holders]
    if holders and None not in used:
        device = device._replace(used=sum(one or 0 for one in used))
    told = tuple(holder_words(one, now, more=known.more.get(one.claim_id, 0)) for one in holders)
    left = () if holders or known.receipt is None else (str(known.receipt),)
    if known.quarantine is not None:
        card = Card(device, "quarantined", (str(known.quarantine), *told, *left))
    else:
        card = Card(device, _held_or_shared(holders) if holders else "unheld", (*told, *left))
    return _with_people(card, known)


def _held_or_shared(holders: Sequence[ClaimInfo]) -> State:
    """The state of a card with these holders: held if one of them has all of it."""
    return "held" if len(holders) == 1 and holders[0].weight >= holders[0].capacity else "shared"


def holder_words(holder: ClaimInfo, now: float, use: Use | None = None, more: int = 0) -> str:
    """A holder for people: ``ann@box pid 4711 (train.py), 5 min, 8 GiB declared, idle for 25 min``.

    A stopped or evicted holder, or one asked to release, is called so; an ended one, with what keeps a card.

    Args:
        holder: The claim. Its weight is in MiB.
        now: The time, in seconds since the epoch.
        use: The use that it makes of the card; None for its last report.
        more: The number of cards for which its request still waits; 0 if it has all.
    """
    words = [str(holder.owner), *_end_words(holder, now), durations.age(now - holder.since)]
    end = ends_at(holder)
    if end is not None:
        words.append(until_words(end, now))
    if more:
        words.append(f"kept for a request that waits for {more} more")
    words += use_words(use_of(holder) if use is None else use, now)
    if holder.reason:
        words.append(f"for: {holder.reason}")
    if holder.release_requests:
        words.append("asked to release")
    return printable(", ".join(words))


def request_words(claim: ClaimInfo) -> str:
    """A request for cards, by its claim on the gate: ``the request of ann@box pid 4711 for 4 GPUs``."""
    asked = claim.note.get("pool")
    count = asked.get("count") if isinstance(asked, Mapping) else None
    wanted = f" for {how_many(count)}" if isinstance(count, int) else ""
    return printable(f"the request of {claim.owner}{wanted}")


def ends_at(holder: ClaimInfo) -> float | None:
    """The latest end of a hold of ``lockkit run --for``, in seconds since the epoch; None without one."""
    longest = number(holder.note.get("max_hold"))
    return None if longest is None or not 0 < longest < _LONGEST else holder.since + longest


def _end_words(holder: ClaimInfo, now: float) -> tuple[str, ...]:
    """Words for a stopped holder, and for an ended hold that keeps its card: why, or for how long."""
    left = (
        ""
        if holder.deadline is None
        else f" for at most {durations.show(max(holder.deadline - now, 0.0))} more"
    )
    if holder.state == "LINGERING":
        return (f"released, and kept{left}",)
    told: list[str] = []
    if holder.evicted:
        told.append(f"evicted, and kept{left}" if left else "evicted")
    if holder.process == "stopped":
        told.append("stopped")
    elif holder.process == "gone":
        if holder.kept_by:
            told.append(f"ended, kept by {' and '.join(map(str, holder.kept_by))}")
        elif left and holder.alive is False:
            told.append("ended" if holder.evicted else f"ended, and kept{left}")
        else:
            told.append(f"ended, see: lockkit explain {holder.name}")
    return tuple(told)
