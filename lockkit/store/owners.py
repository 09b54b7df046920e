"""The stored form of a claim's owner: JSON without empty fields, which older and newer versions can read."""

from __future__ import annotations

from collections.abc import Mapping

from lockkit.facts import Owner

__all__ = ["owner_of", "packed_owner"]

_FIELDS = frozenset(Owner._fields)


def packed_owner(owner: Owner) -> dict[str, object]:
    """The fields of an owner that are not empty."""
    return {key: value for key, value in owner._asdict().items() if value not in ("", None, 0)}


def owner_of(stored: object) -> Owner:
    """The owner from its stored form. Fields that a newer version added are left out; anything but an object gives an empty owner."""
    if not isinstance(stored, Mapping):
        return Owner()
    return Owner(**{key: value for key, value in stored.items() if key in _FIELDS})
