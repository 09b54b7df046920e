"""Commands that the command line suggests, with the common options with which it was called."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Final

from lockkit.config.suggesting import command_line, selecting
from lockkit.errors import LockkitError
from lockkit.notes.members import pool_name

if TYPE_CHECKING:
    from lockkit.cli.base import Session
    from lockkit.gpu.meant import MeantCard
    from lockkit.sync.client import Client

__all__ = [
    "MEANT",
    "PROBE",
    "WORDS",
    "as_called",
    "explain_line",
    "gpus_meant",
    "look",
    "looks_like_card",
]

MEANT: Final = "lockkit.meant"
"""The key of ``click.Context.meta`` under which a suggestion is kept for the report of the error."""
WORDS: Final = "lockkit.words"
"""The key of ``click.Context.meta`` under which a command keeps its words as they were typed."""
PROBE: Final = "lockkit.probe"
"""The key of ``click.Context.meta`` that marks a parsed suggestion, for which there are no suggestions."""
_CARD = r"(?i:(?:gpu(?:_lock)?:)?[0-9]{1,3}|(?:gpu|mig)-[0-9a-f]{4}[0-9a-f-]*)"
"""Names that people give to cards: an index, with or without ``gpu:``, and a UUID or its beginning."""


def as_called(session: Session) -> tuple[str, str]:
    """The options by which a suggested command uses the same store, and what must be done first, as a phrase.

    The options are those of this command: the suggested one is run in the same shell. The phrase is empty
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


def gpus_meant(session: Session, client: Client, name: str, found: MeantCard | None = None) -> str | None:
    """A hint for a name without a lock that looks like a GPU, or a host's pool of GPUs; None for others."""
    pool = name if re.fullmatch(r"gpu(?:-sim)?/[^/]+", name) else None
    if pool is None and not looks_like_card(name):
        return None
    options, first = as_called(session)
    if pool is None:
        from lockkit.gpu.host_pools import host_pool
        from lockkit.gpu.meant import card_meant
        from lockkit.gpu.views import HostView

        found = found or card_meant(client, name)
        if found is not None:
            lock, state = found.info.name, found.holder(time.time())
            return f"did you mean {found.words}, {lock}{first}? It is {state}: {explain_line(session, lock)}"
        try:
            pool = host_pool(HostView(client).host)
        except LockkitError:  # a container that does not know its host
            pool = None
    told = f"did you mean the GPUs of this host{first}? lockkit gpu ls{options}"
    return told if pool is None else f"{told}, and {explain_line(session, pool_name(pool))}"


def looks_like_card(name: str) -> bool:
    """Whether a name is one that people give to cards."""
    return re.fullmatch(_CARD, name) is not None
