"""Traces of a lock that is free. Stores forget free names, so there may be none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lockkit.errors import LockkitError
from lockkit.lib.namedtuples import NamedTuple
from lockkit.notes.members import members_that_begin

if TYPE_CHECKING:
    from lockkit.facts import Record
    from lockkit.sync.client import Client

__all__ = [
    "Traces",
    "failures",
    "near",
    "traces",
]

_NEAR = 3
"""Similar names to suggest at most."""


class Traces(NamedTuple):
    """Knowledge of a name that is not in use.

    Attributes:
        near: Similar names in use, the most similar first; None if the store does not list its names.
        record: The record of the name, or None if there is none.
        unread: Why the record could not be read, in words; empty if it could.
        failed: Failed releases of the name that nobody has resolved, from this user's journal, oldest first.
    """

    near: Sequence[str] | None = None
    record: Record | None = None
    unread: str = ""
    failed: Sequence[Mapping[str, object]] = ()


def traces(client: Client, name: str) -> Traces:
    """Look for traces of a name. An error of the store hides only the trace that it concerns."""
    record, unread = None, ""
    try:
        record = client.record(name)
    except LockkitError as error:
        unread = error.message
    return Traces(near(client, name), record, unread, failures(client, name))


def failures(client: Client, name: str) -> list[dict[str, object]]:
    """The releases of a name in the journal that failed and that nobody has resolved, oldest first."""
    from lockkit.observe import journal

    try:
        records = journal.read(client.config.state_place(create=False).path)
    except (OSError, LockkitError):
        return []
    return [record for record in records if record.get("name") == name and not record.get("resolved")]


def near(client: Client, name: str) -> list[str] | None:
    """Names in use similar to this one, most similar first; None if the store does not list its names."""
    from difflib import get_close_matches

    try:
        names = client.names()
    except LockkitError:
        return None
    folded: dict[str, str] = {}
    for one in names:
        if one != name:
            folded.setdefault(one.casefold(), one)
    alike = [folded[one] for one in get_close_matches(name.casefold(), folded, n=_NEAR)]
    return [*dict.fromkeys([*members_that_begin(names, name), *alike])][:_NEAR]
