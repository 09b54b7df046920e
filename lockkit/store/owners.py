"""The stored form of a claim's owner: JSON without empty fields, which older and newer versions can read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import cast

from lockkit.facts import Kind, Owner
from lockkit.namedtuples import NamedTuple
from lockkit.store.spi import Terms

__all__ = ["About", "about", "about_in", "layout_in", "owner_of", "packed_owner"]

_FIELDS = frozenset(Owner._fields)


def packed_owner(owner: Owner) -> dict[str, object]:
    """The fields of an owner that are not empty."""
    return {key: value for key, value in owner._asdict().items() if value not in ("", None, 0)}


def owner_of(stored: object) -> Owner:
    """The owner from its stored form. Fields that a newer version added are left out; anything but an object gives an empty owner."""
    if not isinstance(stored, Mapping):
        return Owner()
    return Owner(**{key: value for key, value in stored.items() if key in _FIELDS})


def about(terms: Terms) -> str:
    """The JSON text that a claim is stored with for people: its kind of lock and its owner. ASCII, so that any store can keep it.

    The locks of one client share the text, because a store may keep it for each of them.
    """
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
        layout: The version of the layout that wrote it; 0 if it does not say.
    """

    kind: Kind = "mutex"
    owner: Owner = Owner()
    layout: int = 0


@lru_cache(maxsize=512)
def about_in(text: str) -> About:
    """The contents of such a text; a mutex without an owner if it cannot be read."""
    try:
        stored = json.loads(text)
        return About(
            cast("Kind", str(stored.get("kind", "mutex"))), owner_of(stored.get("owner")), layout_in(stored)
        )
    except (ValueError, TypeError, AttributeError):
        return About()
