"""The state of each card, from what its driver says and what the store knows of it. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Mapping

from lockkit import durations
from lockkit.devices import Snapshot
from lockkit.facts import ClaimInfo
from lockkit.gpu.choosing import left_over
from lockkit.gpu.known import NOTHING_KNOWN, Known
from lockkit.gpu.states import Card, cards
from lockkit.gpu.usage import Use, use_of, use_words
from lockkit.printable import printable

__all__ = ["holder_words", "joined"]


_NOTHING: Mapping[str, Use] = {}


def joined(
    snapshot: Snapshot, known: Mapping[str, Known], uses: Mapping[str, Use] = _NOTHING
) -> tuple[Card, ...]:
    """All cards of a snapshot, in its order.

    A card that is quarantined or faulty is shown as such also while it is held, with its holders among the reasons. What computes on a card that
    is held counts as its holder's.

    Args:
        snapshot: The snapshot.
        known: What the store knows of the cards, by UUID.
        uses: The use that holders make of their cards, by claim id. Of the others, what they told counts.
    """
    marks = {uuid: one.quarantine for uuid, one in known.items() if one.quarantine is not None}
    found: list[Card] = []
    for card in cards(snapshot, marks):
        of_store = known.get(card.device.uuid, NOTHING_KNOWN)
        holders = of_store.holders
        told = tuple(holder_words(one, snapshot.taken, uses.get(one.claim_id)) for one in holders)
        left = of_store.receipt
        if holders and card.state in ("quarantined", "faulty", "sliced"):
            found.append(card._replace(reasons=(*card.reasons, *told)))
        elif holders:
            whole = len(holders) == 1 and holders[0].weight >= holders[0].capacity
            found.append(Card(card.device, "held" if whole else "shared", told))
        elif left_over(card) and left and left.outcome != "clean":
            found.append(Card(card.device, "dirty", (str(left), *card.reasons)))
        else:
            found.append(card)
    return tuple(found)


def holder_words(holder: ClaimInfo, now: float, use: Use | None = None) -> str:
    """A holder for people: ``ann@box pid 4711 (train.py), 5 min, 8 GiB declared, 2 GiB used, idle for 25 min, for: evaluation``.

    Args:
        holder: The claim. Its weight is in MiB.
        now: The time, in seconds since the epoch.
        use: The use that it makes of the card; None for what it told last.
    """
    words = [str(holder.owner), durations.show(max(now - holder.since, 0.0))]
    words += use_words(use_of(holder) if use is None else use, now)
    if holder.reason:
        words.append(f"for: {holder.reason}")
    return printable(", ".join(words))
