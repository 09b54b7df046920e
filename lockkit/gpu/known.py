"""The facts that the store has about the cards of a host: who holds them, how they were left, and which are quarantined."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from lockkit.devices import Device
from lockkit.facts import ClaimInfo
from lockkit.gpu.host_pools import host_pool
from lockkit.gpu.quarantine import Quarantined, mark_of, quarantined
from lockkit.gpu.receipts import Receipt, last
from lockkit.members import pool_name
from lockkit.namedtuples import NamedTuple

if TYPE_CHECKING:
    from lockkit.client import Client

__all__ = ["NOTHING_KNOWN", "Known", "known"]


class Known(NamedTuple):
    """The facts that the store has about one card.

    Attributes:
        holders: The claims that hold it, or a part of it.
        receipt: How its last holder left it; None if nobody wrote that down.
        quarantine: The mark, if it is quarantined, or if it is a slice of a card that is.
    """

    holders: tuple[ClaimInfo, ...] = ()
    receipt: Receipt | None = None
    quarantine: Quarantined | None = None


NOTHING_KNOWN = Known()


def known(client: Client, host: str, devices: Iterable[Device]) -> dict[str, Known]:
    """The facts that the store has about some cards, by UUID, without those that have none. Two requests for each, and one for all.

    Raises:
        BackendError: The store does not answer.
    """
    marks = quarantined(client, host)
    found: dict[str, Known] = {}
    for device in devices:
        uuid = device.uuid
        if not uuid:
            continue
        holders = tuple(client.inspect(pool_name(host_pool(host), uuid)).holders)
        live = {one.claim_id for one in holders}
        found[uuid] = Known(holders, last(client, host, uuid, live), mark_of(marks, device))
    return found
