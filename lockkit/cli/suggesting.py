"""Commands that the command line suggests, with the common options with which it was called."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Protocol

from lockkit.config.suggesting import command_line, selecting
from lockkit.hooks import of_gpus
from lockkit.lib.namedtuples import NamedTuple

if TYPE_CHECKING:
    from lockkit.facts import LockInfo
    from lockkit.sync.client import Client

__all__ = [
    "MEANT",
    "PROBE",
    "WORDS",
    "Called",
    "MeantCard",
    "as_called",
    "card_meant",
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
_CARDS = r"gpu(?:-sim)?/[^/]+"
"""Names of the pools of cards."""


class Called(Protocol):
    """The common options with which a command was called; see :class:`lockkit.cli.base.Session`."""

    @property
    def url(self) -> str | None: ...

    @property
    def profile(self) -> str | None: ...

    @property
    def namespace(self) -> str | None: ...


class MeantCard(NamedTuple):
    """A card of this host that a name means.

    Attributes:
        words: The card in words: ``GPU 0``, or its UUID if the card is not seen.
        info: The queue of its lock.
        outright: Whether the name can mean nothing else here: a card's UUID, or the beginning of just one.
    """

    words: str
    info: LockInfo
    outright: bool


def as_called(session: Called) -> tuple[str, str]:
    """The options by which a suggested command uses the same store, and what must be done first, as a phrase.

    The options are those of this command: the suggested one is run in the same shell. The phrase is empty
    unless the URL has a secret.
    """
    way = selecting(session.url, session.profile, session.namespace)
    return way.options, way.first


def explain_line(session: Called, name: str) -> str:
    """The command that explains the state of a lock, ready to paste."""
    return command_line("explain", name, options=as_called(session)[0])


def look(session: Called, name: str) -> str:
    """A hint to look at a lock: ``see: lockkit explain NAME``, with what must be done first."""
    return f"see{as_called(session)[1]}: {explain_line(session, name)}"


def looks_like_card(name: str) -> bool:
    """Whether a name is one that people give to cards."""
    return re.fullmatch(_CARD, name) is not None


def card_meant(client: Client, name: str) -> MeantCard | None:
    """The card of this host that an unused name means; None if there is none, or in doubt."""
    found: MeantCard | None = of_gpus("card_meant")(client, name) if looks_like_card(name) else None
    return found


def gpus_meant(session: Called, client: Client, name: str, found: MeantCard | None = None) -> str | None:
    """A hint for a name without a lock that looks like a GPU, or a host's pool of GPUs; None for others."""
    if not looks_like_card(name) and not re.fullmatch(_CARDS, name):
        return None
    told: str | None = of_gpus("gpus_meant")(session, client, name, found)
    return told
