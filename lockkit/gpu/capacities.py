"""The capacity of each card in its pool, in MiB: fixed when the card is first used, in the card's record.

What a driver calls all the memory of a card changes with its version and with error correction. If each client used the number of its own
driver, claims of different capacities would stand in one queue, and no claim behind the first one could hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lockkit.devices import Device
from lockkit.members import pool_name
from lockkit.sizes import MIB
from lockkit.store.spi import Conflict

if TYPE_CHECKING:
    from lockkit.client import Client
    from lockkit.facts import Record

__all__ = ["KEY", "capacities"]

KEY = "capacity"
"""The key of the record under which the capacity stands."""
_TRIES = 5


def capacities(client: Client, pool: str, devices: Sequence[Device]) -> Mapping[str, int]:
    """The capacity of each card and slice, by UUID, without those whose memory cannot be told. One request for each, two at the first use.

    Raises:
        BackendError: The store does not answer.
    """
    found: dict[str, int] = {}
    for device in devices:
        if device.uuid and device.usable:
            inside = [one.usable or 0 for one in devices if one.parent == device.uuid]
            room = max(device.usable // MIB, sum(size // MIB for size in inside), 1)
            found[device.uuid] = _fixed(client, pool_name(pool, device.uuid), room)
    return found


def _fixed(client: Client, name: str, room: int) -> int:
    """The capacity that the record of a card has; if it has none, write this one."""
    for _ in range(_TRIES - 1):
        record = client.record(name)
        known = _read(record)
        if known is not None:
            return known
        value = {**record.value, KEY: room} if record is not None else {KEY: room}
        try:
            client.put_record(name, value, 0 if record is None else record.version)
        except Conflict:
            continue
        return room
    return _read(client.record(name)) or room


def _read(record: Record | None) -> int | None:
    known = None if record is None else record.value.get(KEY)
    return known if isinstance(known, int) and not isinstance(known, bool) and known >= 1 else None
