"""The owner of a claim as it is stored: JSON without what is empty, which older and newer versions can read."""

from __future__ import annotations

from collections.abc import Mapping

from lockkit.facts import Owner

__all__ = ["owner_of", "packed_owner"]

_FIELDS = frozenset(Owner._fields)


def packed_owner(owner: Owner) -> dict[str, object]:
    """The fields of an owner that say something."""
    return {key: value for key, value in owner._asdict().items() if value not in ("", None, 0)}


def owner_of(stored: object) -> Owner:
    """An owner as it was stored. Fields that a newer version added are left out; nobody, if it is not an object."""
    if not isinstance(stored, Mapping):
        return Owner()
    return Owner(**{key: value for key, value in stored.items() if key in _FIELDS})
