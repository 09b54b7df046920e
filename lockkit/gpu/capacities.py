"""The capacity of each card in its pool, in MiB, as its first user recorded it.

Only ``lockkit resize`` changes the record. The memory that drivers report depends on their version and on
error correction. With each client's own number, a queue would have several capacities, and only its first
claim could hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from lockkit.errors import BackendError
from lockkit.gpu.devices import Device
from lockkit.gpu.enlisting import ABOUT, described, enlist
from lockkit.gpu.host_pools import host_of
from lockkit.notes.members import pool_name
from lockkit.notes.records import CAPACITY, Records, change, fixed_capacity, is_damaged
from lockkit.values.sizes import MIB

__all__ = ["capacities", "seen", "slices_in"]


def capacities(records: Records, pool: str, devices: Sequence[Device]) -> Mapping[str, int]:
    """The capacity of each card and slice, by UUID, if its memory is known, and its record undamaged.

    Raises:
        BackendError: The store does not answer.
    """
    found: dict[str, int] = {}
    for device in devices:
        if device.uuid and device.usable:
            fixed = _fixed(records, pool_name(pool, device.uuid), seen(device, devices), device)
            if fixed is not None:
                found[device.uuid] = fixed
    with suppress(BackendError):  # the list is only for those who look
        enlist(records, host_of(pool), tuple(found))
    return found


def seen(device: Device, devices: Sequence[Device]) -> int:
    """The capacity of a card or slice as its driver shows it, in MiB."""
    inside = [one.usable or 0 for one in devices if one.parent == device.uuid]
    return max((device.usable or 0) // MIB, sum(size // MIB for size in inside), 1)


def slices_in(devices: Sequence[Device], members: Mapping[str, int]) -> Mapping[str, str]:
    """The card of each slice, among the members of a pool."""
    return {
        one.uuid: one.parent
        for one in devices
        if one.parent is not None and one.parent in members and one.uuid in members
    }


def _fixed(records: Records, name: str, room: int, device: Device) -> int | None:
    """The capacity in the record of a card, written now if it has none; None if the record is damaged."""
    record = records.record(name)
    if is_damaged(record):
        return None
    found: list[int] = []

    def decide(value: Mapping[str, object]) -> Mapping[str, object] | None:
        known = fixed_capacity(value)
        found.append(known or room)
        new = {ABOUT: described(device), **value, CAPACITY: known or room}
        return new if new != value else None

    if record is None or decide(record.value) is not None:
        change(records, name, decide)
    return found[-1]
