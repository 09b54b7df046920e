"""Commands that the command line suggests, with the common options with which it was called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lockkit.errors import LockkitError
from lockkit.suggesting import URL_FIRST, command_line, quoted, selecting

if TYPE_CHECKING:
    from lockkit.cli.base import Session
    from lockkit.client import Client

__all__ = [
    "MEANT",
    "PROBE",
    "URL_FIRST",
    "WORDS",
    "as_called",
    "command_line",
    "explain_line",
    "look",
    "near",
    "quoted",
]

MEANT: Final = "lockkit.meant"
"""The key of ``click.Context.meta`` under which a suggestion is kept for the report of the error."""
WORDS: Final = "lockkit.words"
"""The key of ``click.Context.meta`` under which a command keeps its words as they were typed."""
PROBE: Final = "lockkit.probe"
"""The key of ``click.Context.meta`` that marks the parsing of a suggestion, for which there are no suggestions."""
_NEAR = 3
"""Similar names to suggest at most."""


def as_called(session: Session) -> tuple[str, str]:
    """The options with which a suggested command uses the store that this command uses, and a phrase about what must be done first.

    The options are those with which this command was called, because the suggested one is run in the same shell. The phrase is empty,
    unless the URL has a secret.
    """
    way = selecting(session.url, session.profile, session.namespace)
    return way.options, way.first


def explain_line(session: Session, name: str) -> str:
    """The command that explains the state of a lock, ready to paste."""
    return command_line("explain", name, options=as_called(session)[0])


def look(session: Session, name: str) -> str:
    """A hint to look at a lock: ``see: lockkit explain NAME``, with what must be done first."""
    return f"see{as_called(session)[1]}: {explain_line(session, name)}"


def near(client: Client, name: str) -> list[str] | None:
    """Names in use that are similar to this one, the most similar first; None if the store does not list its names."""
    from difflib import get_close_matches

    try:
        names = client.names()
    except LockkitError:
        return None
    folded: dict[str, str] = {}
    for one in names:
        if one != name:
            folded.setdefault(one.casefold(), one)
    return [folded[one] for one in get_close_matches(name.casefold(), folded, n=_NEAR)]
