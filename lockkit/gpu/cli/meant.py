"""The card that a person means by an unused name: ``0``, ``gpu:0`` or the beginning of a UUID."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from lockkit.cli.suggesting import MeantCard, as_called, explain_line
from lockkit.errors import LockkitError
from lockkit.facts import LockInfo
from lockkit.gpu.devices import Device
from lockkit.gpu.homes import homes
from lockkit.gpu.host_pools import has_cards, host_of, host_pool
from lockkit.gpu.hosts import host_name
from lockkit.gpu.joining import holder_words, request_words
from lockkit.gpu.resolving import resolve
from lockkit.gpu.snapshots import look, looking, providers
from lockkit.gpu.views import HostView
from lockkit.gpu.words import short_name
from lockkit.notes.members import in_pool, pool_name

if TYPE_CHECKING:
    from lockkit.cli.base import Session
    from lockkit.sync.client import Client

__all__ = ["card_meant", "gpus_meant", "pool_words"]

_UUID: Final = r"(?i:(?:gpu|mig)-[0-9a-f]{4}[0-9a-f-]*)"


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


def gpus_meant(session: Session, client: Client, name: str, found: MeantCard | None) -> str:
    """A hint for the name of a card or of a host's pool that no lock has; ``found``: the card, if known."""
    options, first = as_called(session)
    pool = name if has_cards(name) else None
    if pool is None:
        found = found or card_meant(client, name)
        if found is not None:
            lock, state = found.info.name, _holder(found.info, time.time())
            return f"did you mean {found.words}, {lock}{first}? It is {state}: {explain_line(session, lock)}"
        with suppress(LockkitError):  # a container that does not know its host
            pool = host_pool(HostView(client).host)
    told = f"did you mean the GPUs of this host{first}? lockkit gpu ls{options}"
    return told if pool is None else f"{told}, and {explain_line(session, pool_name(pool))}"


def pool_words(info: LockInfo) -> list[str]:
    """The sentences of ``lockkit explain`` about the pool that a card's lock, or a gate, belongs to."""
    pool, member = in_pool(info.name) or ("", None)
    host = host_of(pool)
    if member is not None:
        return [f"{info.name!r} is the lock of {member}, a GPU of the host {host}."]
    return [
        f"{info.name!r} is the gate of the GPUs of the host {host}, which requests for them pass one by one.",
        *(f"At the gate is {request_words(one)}; all others wait behind it." for one in info.holders),
    ]


def _holder(info: LockInfo, now: float) -> str:
    """The first holder in words, and how many more there are; ``free`` if there is none."""
    first, *more = info.holders or (None,)
    if first is None:
        return "free" if not info.claims else "about to go to the next in its queue"
    return f"held by {holder_words(first, now)}{f', and {len(more)} more' if more else ''}"


def _devices(client: Client) -> tuple[Device, ...]:
    try:
        asked = providers(client.config, client.plugins)
        return look(asked, looking(client.config)).devices
    except LockkitError:
        return ()
