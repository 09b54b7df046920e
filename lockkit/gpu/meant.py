"""The card that a person means by an unused name: ``0``, ``gpu:0`` or the beginning of a UUID."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from lockkit.errors import LockkitError
from lockkit.facts import LockInfo
from lockkit.gpu.devices import Device
from lockkit.gpu.homes import homes
from lockkit.gpu.host_pools import host_pool
from lockkit.gpu.hosts import host_name
from lockkit.gpu.joining import holder_words
from lockkit.gpu.resolving import resolve
from lockkit.gpu.snapshots import look, looking, providers
from lockkit.gpu.words import short_name
from lockkit.lib.namedtuples import NamedTuple
from lockkit.notes.members import in_pool, pool_name

if TYPE_CHECKING:
    from lockkit.sync.client import Client

__all__ = ["MeantCard", "card_meant"]

_UUID: Final = r"(?i:(?:gpu|mig)-[0-9a-f]{4}[0-9a-f-]*)"


class MeantCard(NamedTuple):
    """A card of this host that a name means.

    Attributes:
        words: The card in words: ``GPU 0``, or its UUID if the card is not seen.
        info: The queue of its lock.
        outright: Whether the name can mean nothing else here: a card's UUID, or the beginning of just one.
    """

    words: str
    info: LockInfo
    outright: bool

    def holder(self, now: float) -> str:
        """The first holder in words, and how many more there are; ``free`` if there is none.

        Args:
            now: The time, in seconds since the epoch.
        """
        first, *more = self.info.holders or (None,)
        if first is None:
            return "free" if not self.info.claims else "about to go to the next in its queue"
        return f"held by {holder_words(first, now)}{f', and {len(more)} more' if more else ''}"


def card_meant(client: Client, name: str) -> MeantCard | None:
    """The card of this host that a name means; None if there is none or more than one, or in doubt.

    Asks the drivers of this host once, the store twice and once for each card. An index is never outright.

    Args:
        client: The client.
        name: An index, with or without ``gpu:``, a UUID or at least 8 characters of one.
    """
    word = name.rpartition(":")[2]
    try:
        devices = _devices(client)
        pool = host_pool(homes(client, host_name(client.config), devices).host)
        used = [found[1] for one in client.names(prefix=f"{pool_name(pool)}/") if (found := in_pool(one))]
        uuid = resolve(word, devices, [one for one in used if one])
        info = client.inspect(pool_name(pool, uuid))
    except LockkitError:
        # A container that does not know its host, a store that lists no names, or no such card.
        return None
    device = next((one for one in devices if one.uuid == uuid), None)
    return MeantCard(uuid if device is None else short_name(device), info, bool(re.fullmatch(_UUID, word)))


def _devices(client: Client) -> tuple[Device, ...]:
    try:
        asked = providers(client.config, client.plugins)
        return look(asked, looking(client.config)).devices
    except LockkitError:
        return ()
