"""Layouts: stored data names the oldest layout whose readers may touch it (``min_reader``); an older reader must refuse it."""

from __future__ import annotations

from collections.abc import Mapping

from lockkit.errors import IncompatibleLayout
from lockkit.facts import Owner
from lockkit.store.owners import owner_of
from lockkit.store.spi import Refused

__all__ = ["check_reader", "too_new"]

_HINT = "upgrade lockkit here, or let the newer ones finish first"


def check_reader(stored: Mapping[str, object], reader: int, what: str) -> None:
    """Refuse stored data that this code must not touch.

    Args:
        stored: The value; without a ``min_reader`` any reader may. Its ``owner`` is named in the error.
        reader: The newest layout that this code knows.
        what: The name of the data in the error.

    Raises:
        Refused: With IncompatibleLayout.
    """
    least = stored.get("min_reader") or 0
    if type(least) is not int or least > reader:
        raise too_new(what, least, reader, owner_of(stored.get("owner")))


def too_new(what: str, least: object, reader: int, owner: Owner, hint: str = _HINT) -> Refused:
    """The refusal of data for readers of layout ``least``, by code that reads layout ``reader``."""
    who = f"lockkit {owner.version}" if owner.version else "a newer lockkit"
    where = f" on {owner.host}" if owner.host else ""
    text = f"{what} was written by {who}{where} for readers of layout {least}; this one reads layout {reader}"
    return Refused(IncompatibleLayout(text, hint=hint), retry=False)
