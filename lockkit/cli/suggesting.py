"""Commands that the command line suggests, with the common options with which it was called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lockkit.errors import LockkitError
from lockkit.suggesting import URL_FIRST, command_line, options, quoted

if TYPE_CHECKING:
    from lockkit.cli.base import Session
    from lockkit.client import Client

__all__ = [
    "MEANT",
    "PROBE",
    "URL_FIRST",
    "WORDS",
    "command_line",
    "explain_line",
    "look",
    "near",
    "quoted",
    "same_store",
]

MEANT: Final = "lockkit.meant"
"""The key of ``click.Context.meta`` under which a suggestion is kept for the report of the error."""
WORDS: Final = "lockkit.words"
"""The key of ``click.Context.meta`` under which a command keeps its words as they were typed."""
PROBE: Final = "lockkit.probe"
"""The key of ``click.Context.meta`` that marks the parsing of a suggestion, for which there are no suggestions."""
_NEAR = 3
"""Similar names to suggest at most."""


def same_store(session: Session) -> tuple[str, str]:
    """The options with which a suggested command uses the same store, and a phrase about what must be done first.

    A suggested command never contains a secret. If the URL has a secret, the phrase says that LOCKKIT_URL must be set to it first;
    otherwise the phrase is empty.
    """
    from lockkit.redaction import redact

    url = session.url or ""
    secret = bool(url) and redact(url) != url
    words = [
        ("--url", None if secret else url),
        ("--profile", session.profile),
        ("--namespace", session.namespace),
    ]
    return options(words), URL_FIRST if secret else ""


def explain_line(session: Session, name: str) -> str:
    """The command that explains the state of a lock, ready to paste."""
    return command_line("explain", name, options=same_store(session)[0])


def look(session: Session, name: str) -> str:
    """A hint to look at a lock: ``see: lockkit explain NAME``, with what must be done first."""
    return f"see{same_store(session)[1]}: {explain_line(session, name)}"


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
