"""The state of each card: as shown to people and programs, with the reason. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from lockkit.facts import NOTHING
from lockkit.gpu.devices import Device, Snapshot
from lockkit.gpu.quarantine import mark_of
from lockkit.gpu.words import how_many, process_words
from lockkit.lib.namedtuples import NamedTuple
from lockkit.values.sizes import GIB, show

__all__ = ["STATES", "STRAY", "Card", "State", "cards", "of_drivers", "summary"]

STRAY = GIB
"""The bytes in use, beyond the driver's reserve, up to which a card without processes counts as free."""

State = Literal[
    "free", "held", "shared", "busy", "dirty", "sliced", "faulty", "unknown", "quarantined", "unheld"
]
STATES: Mapping[State, str] = {
    "free": "free",
    "held": "held",
    "shared": "shared",
    "busy": "busy (unmanaged)",
    "dirty": "dirty",
    "sliced": "divided into slices",
    "faulty": "faulty",
    "unknown": "unknown",
    "quarantined": "quarantined",
    "unheld": "not held",
}
"""Each state in words. Unmanaged: a program computes on the card, and no lock says so. Not held: no claim
holds a card of another host, of which nothing else is known."""


class Card(NamedTuple):
    """A card or slice, and its state.

    Attributes:
        device: What the provider says of it.
        state: The state.
        reasons: Why it is in this state, a sentence each; empty for a card that is free.
        users: The users who hold it, or a part of it.
        unmanaged: The users of programs that compute on it without a lock.
        waiting: The number of claims in its own queue that wait.
    """

    device: Device
    state: State
    reasons: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    unmanaged: tuple[str, ...] = ()
    waiting: int = 0


def cards(snapshot: Snapshot, quarantine: Mapping[str, object] = NOTHING) -> tuple[Card, ...]:
    """All cards of a snapshot, in its order.

    Args:
        snapshot: The snapshot.
        quarantine: The marks of quarantined cards, by UUID. That of a card counts for its slices.
    """
    found: list[Card] = []
    for device in snapshot.devices:
        mark = mark_of(quarantine, device)
        card = _card(device)
        if mark is not None:
            words = str(mark)
            card = Card(device, "quarantined", (words, *(one for one in card.reasons if one not in words)))
        found.append(card)
    return tuple(found)


def _card(device: Device) -> Card:
    """A fault outweighs everything: a faulty card may not even say what runs on it."""
    if device.faults:
        return Card(device, "faulty", device.faults)
    if device.sliced:
        return Card(device, "sliced", ("programs can use only its slices",))
    if device.processes:
        return Card(device, "busy", tuple(map(process_words, device.processes)))
    if device.used is None:
        told = "its memory cannot be told" if device.processes is not None else "its use cannot be told"
        return Card(device, "unknown", (told,))
    if device.used > device.tolerated:
        whom = "no process that is seen" if device.processes is not None else "processes that cannot be told"
        return Card(device, "busy", (f"{show(device.used - device.ignored_bytes)} in use by {whom}",))
    return Card(device, "free")


def of_drivers(found: tuple[Card, ...]) -> str:
    """The cards in each state that drivers alone show: ``2 GPUs, 1 busy``, ``2 GPUs, none busy or faulty``.

    Not how many are free, because only the store knows who holds one.

    Args:
        found: The cards.
    """
    parts = [card for card in found if not card.device.sliced]
    numbers = {state: sum(card.state == state for card in parts) for state in STATES if state != "free"}
    counts = [f"{number} {state}" for state, number in numbers.items() if number]
    return f"{how_many(len(parts))}, {', '.join(counts) or 'none busy or faulty'}"


def summary(found: tuple[Card, ...], waiting: int = 0) -> str:
    """The cards in each state: ``3 GPUs: 2 free, 1 busy (unmanaged)``. Slices count in place of their card.

    Args:
        found: The cards.
        waiting: The number of waiting requests, to add: ``8 GPUs: 8 held; 2 requests wait``.
    """
    parts = [card for card in found if not card.device.sliced]
    numbers = {state: sum(card.state == state for card in parts) for state in STATES}
    counts = ", ".join(f"{number} {STATES[state]}" for state, number in numbers.items() if number)
    told = "; 1 request waits" if waiting == 1 else f"; {waiting} requests wait" if waiting else ""
    return (
        f"{how_many(len(parts))}: {counts}{told}"
        if parts
        else "no GPU can be used: a card that is divided has no slices"
    )
