"""A check of recovery: cards of this host that were quarantined without a person, and that are well again.

A person clears a person's mark, and that of a fault that the driver does not show (a preflight, an Xid).
Others are cleared, if unchanged, after two looks, some time apart, that show the card unused and without a
fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from lockkit.errors import ConfigError, DevicesUnavailable
from lockkit.gpu.homes import homes
from lockkit.gpu.host_pools import host_pool
from lockkit.gpu.hosts import host_name
from lockkit.gpu.quarantine import Quarantined, clear, quarantined
from lockkit.gpu.snapshots import let_go, look, looking, providers
from lockkit.gpu.states import Card, cards
from lockkit.gpu.words import short_name
from lockkit.notes.members import pool_name
from lockkit.observe.checks import Case, CheckContext

if TYPE_CHECKING:
    from lockkit.sync.client import Client

__all__ = ["check"]


def check(context: CheckContext) -> Iterator[Case]:
    """The cards with an automatic mark to clear. One look, one request, and one for each card."""
    client = context.client
    try:
        named = host_name(client.config)
    except ConfigError:
        return  # a container that does not know its host cannot know its cards
    unseen: DevicesUnavailable | None = None
    found: tuple[Card, ...] = ()
    try:
        found = _seen(client)
    except DevicesUnavailable as error:
        unseen = error
    host = homes(client, named, [one.device for one in found]).host
    marks = [mark for mark in quarantined(client, host).values() if mark.automatic and not mark.lasting]
    if marks and unseen is not None:
        yield _unseen(host, marks, unseen)
    for mark in marks:
        if (case := _case(client, host, mark, found)) is not None:
            yield case


def _unseen(host: str, marks: Sequence[Quarantined], error: DevicesUnavailable) -> Case:
    """The case of cards that cannot be examined, and stay quarantined. A person should look."""
    which = ", ".join(mark.uuid for mark in marks)
    why = f"whether {which} is well again cannot be told: {error.message}"
    seen = {"cards": [mark.uuid for mark in marks], "error": error.message}
    return Case("card", "tell", pool_name(host_pool(host)), why, seen=seen)


def _case(client: Client, host: str, mark: Quarantined, found: tuple[Card, ...]) -> Case | None:
    card = _well(mark.uuid, found)
    if card is None:
        return None
    device = card.device
    seen = {
        "card": mark.uuid,
        "quarantined": {"reason": mark.reason, "by": mark.by, "since": mark.since},
        "state": card.state,
        "used": device.used,
    }
    why = (
        f"{short_name(device)} is well again: the driver reports no fault, and nothing uses it. It was {mark}"
    )
    return Case(
        "card",
        "fix",
        pool_name(host_pool(host), mark.uuid),
        why,
        seen=seen,
        fix=partial(_clear, client, host, mark),
        again=partial(_again, client, host, mark),
    )


def _again(client: Client, host: str, mark: Quarantined) -> Case | None:
    """The case at a second look; None if the card is not well, or has another mark or none."""
    if quarantined(client, host).get(mark.uuid) != mark:
        return None
    try:
        return _case(client, host, mark, _seen(client))
    except DevicesUnavailable:
        return None


def _clear(client: Client, host: str, mark: Quarantined) -> str:
    before = clear(client, host, mark.uuid, only=mark)
    return "absent" if before is None else "cleared" if before == mark else "changed"


def _seen(client: Client) -> tuple[Card, ...]:
    """The cards of this host.

    Raises:
        DevicesUnavailable: Nothing can be said about any, for instance because a driver hangs.
    """
    asked = providers(client.config, client.plugins)
    try:
        return cards(look(asked, looking(client.config)))
    finally:
        let_go(asked)  # a recoverer goes on for days, and an open driver keeps others from resetting a card


def _well(uuid: str, found: tuple[Card, ...]) -> Card | None:
    """The card, if it is free: a divided one if its slices are, and a slice if its card has no fault."""
    card = next((one for one in found if one.device.uuid == uuid), None)
    if card is None:
        return None
    parts = [one for one in found if one.device.parent == uuid]
    idle = parts and all(map(_free, parts)) if card.state == "sliced" else _free(card)
    faulty = any(one.device.faults for one in found if one.device.uuid == card.device.parent)
    return card if idle and not faulty else None


def _free(card: Card) -> bool:
    """Whether the driver says that nothing uses a card. Unknown use counts as use."""
    return card.state == "free" and card.device.processes is not None
