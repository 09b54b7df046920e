"""The facts that the store has about a host's cards: their holders, how they were left, and the marks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from lockkit.facts import ClaimInfo, LockInfo
from lockkit.gpu.choosing import CardFacts, holders_of_slice
from lockkit.gpu.devices import Device
from lockkit.gpu.host_pools import host_pool
from lockkit.gpu.judging import Receipt
from lockkit.gpu.marks import ALL, CARD_DAMAGED
from lockkit.gpu.quarantine import Quarantined, mark_of, mark_of_damage, quarantined
from lockkit.gpu.receipts import last_in
from lockkit.lib.namedtuples import NamedTuple
from lockkit.notes.members import pool_name

if TYPE_CHECKING:
    from lockkit.gpu.homes import Homes
    from lockkit.sync.client import Client

__all__ = [
    "NOTHING_KNOWN",
    "Known",
    "facts_of",
    "gathering",
    "holders_of",
    "known",
    "queue",
    "with_cards_around",
]

_NONE: Mapping[str, int] = {}


class Known(NamedTuple):
    """The facts that the store has about one card.

    Attributes:
        holders: The claims that hold it, or a part of it; for a slice also those that hold its whole card.
        receipt: How its last holder left it; None if nobody wrote that down.
        quarantine: The mark, if it is quarantined, or if it is a slice of a card that is.
        more: The number of cards for which an unfinished request of a holder still waits, by claim id.
        waiters: The claims that wait in its queue.
    """

    holders: tuple[ClaimInfo, ...] = ()
    receipt: Receipt | None = None
    quarantine: Quarantined | None = None
    more: Mapping[str, int] = _NONE
    waiters: tuple[ClaimInfo, ...] = ()


NOTHING_KNOWN = Known()


def facts_of(card: Known) -> CardFacts:
    """The facts about a card as its chooser has them."""
    mark = card.quarantine
    if mark is None:
        return CardFacts(card.holders, receipt=card.receipt)
    return CardFacts(card.holders, None, str(mark), card.receipt, "" if mark.uuid == ALL else mark.uuid)


def queue(client: Client, host: str) -> LockInfo:
    """The requests for cards of a host that wait, in their order: the claims on the gate of its pool.

    Raises:
        BackendError: The store does not answer.
    """
    return client.inspect(pool_name(host_pool(host)))


def known(client: Client, home: Homes, devices: Iterable[Device], gate: LockInfo) -> dict[str, Known]:
    """The facts of the store about some cards, by UUID, if any. Two requests for each, and one for all.

    Args:
        client: The client.
        home: The home of the cards.
        devices: The cards.
        gate: The requests that wait, read before this call.

    Raises:
        BackendError: The store does not answer.
    """
    host, marks = home.host, quarantined(client, home.host)
    marks |= {uuid: Quarantined(uuid, CARD_DAMAGED) for uuid in home.damaged}
    found: dict[str, Known] = {}
    devices = tuple(devices)
    for device in devices:
        uuid = device.uuid
        if not uuid:
            continue
        name = pool_name(host_pool(host), uuid)
        info, record = client.inspect(name), client.record(name)
        receipt = last_in(uuid, record.value, {one.claim_id for one in info.claims}) if record else None
        holders = (*info.holders, *home.holders_before(client, device))
        found[uuid] = Known(holders, receipt, waiters=info.waiters)
        mark = mark_of_damage(uuid, record)
        if mark is not None:
            marks.setdefault(uuid, mark)
    for device in devices:
        if device.uuid in found:
            found[device.uuid] = found[device.uuid]._replace(quarantine=mark_of(marks, device))
    more = gathering(
        gate, found, {one.parent for one in devices if one.uuid in found and found[one.uuid].holders}
    )
    # Not before: a claim on a card is one card of its request, however many slices it has by now.
    found = with_cards_around(found, devices)
    return {uuid: one._replace(more=more) for uuid, one in found.items()} if more else found


def with_cards_around(found: Mapping[str, Known], devices: Iterable[Device]) -> dict[str, Known]:
    """The facts about cards, where the holder of a whole divided card also holds its slices.

    Args:
        found: The facts about each card and slice, with the holders in its own queue.
        devices: The cards and slices.
    """
    made = dict(found)
    for device in devices:
        own, around = found.get(device.uuid), found.get(device.parent or "")
        if own is not None and around is not None:
            made[device.uuid] = own._replace(holders=holders_of_slice(own.holders, around.holders))
    return made


def holders_of(client: Client, host: str, uuid: str) -> tuple[ClaimInfo, ...]:
    """The claims that hold one card, or a part of it. One request.

    Raises:
        BackendError: The store does not answer.
    """
    return client.inspect(pool_name(host_pool(host), uuid)).holders


def gathering(
    gate: LockInfo, found: Mapping[str, Known], around: Collection[str | None] = ()
) -> dict[str, int]:
    """The claims of an unfinished request at the gate, by claim id, with the number of cards still missing.

    These are its owner's claims granted since it got the gate, so not those of an earlier request.

    Args:
        gate: The requests that wait.
        found: The facts about the cards.
        around: The UUIDs of cards of which a slice is held: they are not counted beside the slice.
    """
    for one in gate.holders:
        asked = one.note.get("pool")
        count = asked.get("count") if isinstance(asked, Mapping) else None
        if not isinstance(count, int) or one.state != "HELD":
            continue
        got = {
            uuid: claim.claim_id
            for uuid, card in found.items()
            for claim in card.holders
            if claim.owner == one.owner and claim.since >= one.since and claim.state == "HELD"
        }
        more = count - len([uuid for uuid in got if uuid not in around])
        return dict.fromkeys(got.values(), more) if more > 0 else {}
    return {}
