"""The stored form of a claim's owner: JSON without empty fields, which older and newer versions can read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache

from lockkit.carried import packed_owner
from lockkit.facts import Kind, Owner
from lockkit.lib.namedtuples import NamedTuple
from lockkit.store.spi import Terms
from lockkit.store.untrusted import object_in, owner_of

__all__ = ["About", "about", "about_in", "layout_in", "packed_owner"]


def about(terms: Terms) -> str:
    """The JSON text about a claim for people: its kind of lock and its owner. ASCII; one text per client."""
    return _text(terms.kind, terms.owner)


@lru_cache(maxsize=64)
def _text(kind: Kind, owner: Owner) -> str:
    return json.dumps({"v": 1, "kind": kind, "owner": packed_owner(owner)}, separators=(",", ":"))


def layout_in(stored: Mapping[str, object]) -> int:
    """The version of the layout that stored data names as its own; 0 if it names none."""
    version = stored.get("v")
    return version if type(version) is int else 0


class About(NamedTuple):
    """The contents of such a text.

    Attributes:
        kind: The kind of the lock, for :func:`lockkit.store.untrusted.claim_of`; None if unreadable.
        owner: The owner; without fields if unreadable.
        layout: The version of the layout that wrote it; 0 if it does not say.
    """

    kind: object = None
    owner: Owner = Owner()
    layout: int = 0


@lru_cache(maxsize=512)
def about_in(text: str) -> About:
    """The contents of such a text; nothing if it cannot be read."""
    stored = object_in(text)
    if stored is None:
        return About()
    return About(stored.get("kind", "mutex"), owner_of(stored.get("owner")), layout_in(stored))
