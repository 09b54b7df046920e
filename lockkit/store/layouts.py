"""Layout versions: data names the oldest one that may touch it (``min_reader``); older code refuses it."""

from __future__ import annotations

from collections.abc import Mapping

from lockkit.errors import IncompatibleLayout
from lockkit.facts import Owner, Record
from lockkit.store.spi import Refused
from lockkit.store.untrusted import NEWER, object_in, owner_of, record_of

__all__ = ["check_reader", "record_in", "too_new", "unread"]

_HINT = "upgrade lockkit on this host, or wait until the newer programs have finished"


def check_reader(stored: Mapping[str, object], reader: int, what: str) -> None:
    """Refuse stored data that this code must not touch.

    Args:
        stored: The value; any version may touch it without a ``min_reader``. Errors name its ``owner``.
        reader: The newest layout version that this code knows.
        what: The name of the data in the error.

    Raises:
        Refused: With IncompatibleLayout: the data needs a newer version.
    """
    if unread(stored, reader):
        raise too_new(what, stored["min_reader"], reader, owner_of(stored.get("owner")))


def record_in(name: str, stored: object, reader: int) -> Record:
    """The record of a name as a fact. A malformed one is shown as damaged, never as empty.

    Args:
        name: The name.
        stored: The stored form, as JSON text or decoded: ``version``, ``written``, ``value``, ``min_reader``.
        reader: The newest layout version that the caller knows.

    Raises:
        Refused: With IncompatibleLayout: the record needs a newer version.
    """
    document = stored if isinstance(stored, Mapping) else object_in(stored)
    if document is None or type(document.get("min_reader", 0)) is not int:
        return record_of(name, {"version": (document or {}).get("version")})
    check_reader(document, reader, f"the record of {name!r}")
    return record_of(name, document)


def unread(stored: Mapping[str, object], reader: int) -> str:
    """The evidence for a claim whose stored data this code must not touch; empty if it may."""
    least = stored.get("min_reader") or 0
    return NEWER if type(least) is not int or least > reader else ""


def too_new(what: str, least: object, reader: int, owner: Owner, hint: str = _HINT) -> Refused:
    """The refusal of data of layout version ``least``, by code that knows versions up to ``reader``."""
    who = f"lockkit {owner.version}" if owner.version else "a newer lockkit"
    where = f" on {owner.host}" if owner.host else ""
    text = (
        f"{what} was written by {who}{where} and needs layout version {least}; this lockkit supports {reader}"
    )
    return Refused(IncompatibleLayout(text, hint=hint), retry=False)
