"""Take a faulty card out of use: quarantine it if enough others are left, and raise an alert either way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lockkit.facts import Alert, Owner
from lockkit.gpu.devices import Device
from lockkit.gpu.host_pools import host_pool
from lockkit.gpu.quarantine import Capped, find_faulty
from lockkit.gpu.words import long_name
from lockkit.notes.members import pool_name
from lockkit.notes.records import Records

__all__ = ["take_out"]


def take_out(
    records: Records,
    host: str,
    devices: Sequence[Device],
    uuid: str,
    reason: str,
    by: Owner,
    tell: Callable[[Alert], object],
    *,
    lasting: bool,
    claim_id: str = "",
) -> str:
    """Take a faulty card out of use. Returns the reason, and what was done about it, for people.

    One alert for each mark, and one an hour for a card that stays in use, however many find it faulty.

    Args:
        records: A client.
        host: The host.
        devices: All cards and slices of the host.
        uuid: The card.
        reason: What was found.
        by: The owner of the process that found it.
        tell: Raises an alert.
        lasting: Whether the mark stays until a person clears it, although the driver shows no fault.
        claim_id: The claim under which it was found, for the alert.

    Raises:
        BackendError: The store did not do it.
    """
    cards = [one.uuid for one in devices if one.uuid and one.parent is None]
    parents = {one.uuid: one.parent for one in devices if one.parent is not None}
    done, fresh = find_faulty(records, host, uuid, reason, by, cards, parents, lasting=lasting)
    title = next((long_name(one) for one in devices if one.uuid == uuid), uuid)
    name, data = pool_name(host_pool(host), uuid), {"uuid": uuid, "host": host}
    if isinstance(done, Capped):
        limit = f"{done.count} of its host are, and more are not without a person"
        told = f"{reason}; it is not quarantined, because {limit}"
        if fresh:
            tell(Alert("gpu_not_quarantined", "P0", f"{title}: {told}", name, claim_id, data=data))
        return told
    if fresh:
        tell(Alert("gpu_quarantined", "P1", f"{title}: {done}", name, claim_id, data=data))
    return f"{reason}; it is quarantined (to give it back: lockkit gpu clear {uuid})"
