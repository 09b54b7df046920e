"""The list of hosts and of their cards in the store, for ``lockkit gpu ls --all-hosts``.

The record of the gate ``@pool/gpu`` has the names of all hosts, that of its member ``@pool/gpu/HOST`` the
UUIDs of its cards, and the record of each card describes it. Simulated cards have lists of their own, under
``@pool/gpu-sim``. Requests never read these lists: the pool of a host has the cards that its driver shows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from lockkit.facts import NOTHING
from lockkit.gpu.devices import Device
from lockkit.gpu.host_pools import ROOT, host_of, host_pool
from lockkit.lib.noted import whole_number
from lockkit.notes.members import pool_name
from lockkit.notes.records import Records, change, cut
from lockkit.store.spi import NOTE_LIMIT

__all__ = ["ABOUT", "about", "described", "enlist", "listed_cards", "listed_hosts", "texts"]

ABOUT = "about"
"""The key under which the record of a card says what it is."""
_ROOM = NOTE_LIMIT - 256
"""Bytes of a list. From a longer one the oldest entries are left out."""


def enlist(records: Records, host: str, uuids: Sequence[str]) -> None:
    """Enter a host and its cards into the lists. One request if they are there already.

    Raises:
        BackendError: The store did not do it.
    """
    if set(uuids) <= {*listed_cards(records, host)}:
        return
    root, _, bare = host_pool(host).partition("/")
    # First: a host that has its cards listed is not entered again.
    _add(records, pool_name(root), "hosts", [bare])
    _add(records, pool_name(root, bare), "cards", uuids)


def listed_hosts(records: Records, root: str = ROOT) -> list[str]:
    """The hosts in the list, as the store names them. One request.

    Args:
        records: A client.
        root: The name under which the pools of the hosts lie: that of real cards, or that of simulated ones.
    """
    record = records.record(pool_name(root))
    return [host_of(f"{root}/{one}") for one in texts((record.value if record else NOTHING).get("hosts"))]


def listed_cards(records: Records, host: str) -> list[str]:
    """The UUIDs in the list of a host's cards, also of those that its driver shows no more. One request."""
    record = records.record(pool_name(*host_pool(host).split("/", 1)))
    return texts((record.value if record else NOTHING).get("cards"))


def _add(records: Records, name: str, key: str, new: Sequence[str]) -> None:
    def decide(value: Mapping[str, object]) -> Mapping[str, object] | None:
        before = texts(value.get(key))
        after = [*before, *(one for one in new if one not in before)]
        while len(json.dumps(after)) > _ROOM:
            del after[0]
        return {**value, key: after} if after != before else None

    change(records, name, decide, instead={})  # the list permits nothing


def described(device: Device) -> dict[str, object]:
    """A card, as its record describes it."""
    value = {"index": device.index, "name": cut(device.name, 64), "parent": device.parent}
    return {key: one for key, one in value.items() if one not in (None, "")}


def about(value: Mapping[str, object]) -> tuple[int, str, str | None]:
    """The index, model and parent in the record of a card; -1, "" and None where it does not have them."""
    known = value.get(ABOUT)
    told = known if isinstance(known, Mapping) else NOTHING
    name, parent = told.get("name"), told.get("parent")
    index = whole_number(told.get("index"))
    return (
        -1 if index is None else index,
        name if isinstance(name, str) else "",
        parent if isinstance(parent, str) else None,
    )


def texts(value: object) -> list[str]:
    """The texts in a list of a record; none if there is no list."""
    return [one for one in value if isinstance(one, str)] if isinstance(value, list | tuple) else []
