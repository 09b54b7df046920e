"""Interventions from outside: evict one claim, or ask its holder to release. Other claims are untouched."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lockkit.cli import completing, exits, output
from lockkit.cli.base import option
from lockkit.cli.suggesting import card_meant, gpus_meant, look, looks_like_card
from lockkit.errors import LockkitError, NotHeld, OutcomeUnknown
from lockkit.notes.remarks import gone
from lockkit.values import durations

if TYPE_CHECKING:
    from lockkit.cli.base import Session
    from lockkit.facts import ClaimInfo, Evicted
    from lockkit.sync.client import Client

__all__ = ["CLAIM", "asked_words", "evict", "evicted_words", "explained", "lock_meant", "waited"]

CLAIM = option(
    "--claim",
    "claim_id",
    required=True,
    metavar="ID",
    shell_complete=completing.claims,
    help="The claim, as status and explain show it.",
)
"""The option that names the claim of a command."""


def lock_meant(client: Client, name: str) -> str:
    """The lock that an intervention is about: a card's if the name is its UUID, or the beginning of just one.

    A lock of that name with claims comes first. The claim is named too, so no wrong card is touched.
    """
    if not looks_like_card(name) or client.inspect(name).claims:
        return name
    card = card_meant(client, name)
    return card.info.name if card is not None and card.outright else name


@contextmanager
def explained(session: Session, client: Client, name: str, unknown: str) -> Iterator[None]:
    """Turn the errors of an intervention into those of its command, with a hint where to look.

    ``unknown`` says what may have happened if the outcome is unknown.

    Raises:
        CommandFailed: The lock has no such claim.
        OutcomeUnknown: As it was raised, with the hint.
    """
    try:
        yield
    except NotHeld as error:
        raise exits.CommandFailed(
            error.message,
            code=exits.FAILED,
            kind="absent",
            name=name,
            holder=error.holder,
            hint="; ".join(filter(None, (error.hint, _instead(session, client, name)))),
        ) from None
    except OutcomeUnknown as error:
        error.hint = "; ".join(filter(None, (error.hint, f"{unknown}; {look(session, name)}")))
        raise


def _instead(session: Session, client: Client, name: str) -> str:
    """A hint if a lock lacks the claim: the GPU that an unclaimed name may mean, or else where to look."""
    meant = None
    if looks_like_card(name):
        try:
            meant = None if client.inspect(name).claims else gpus_meant(session, client, name)
        except LockkitError:
            meant = None  # the error of the command is worth more than a hint
    return meant or look(session, name)


def evict(client: Client, name: str, claim_id: str, *, reason: str, now: bool = False) -> Evicted:
    """Evict one claim.

    Raises:
        NotHeld: The lock has no such claim: it has ended. A new holder of the lock is not affected.
        OutcomeUnknown: The store did not answer, so the claim may have been evicted.
    """
    result = client.evict(name, claim_id, reason=reason, now=now)
    if result.outcome == "ABSENT":
        raise gone(client.inspect(name), claim_id)
    return result


def waited(result: Evicted) -> bool:
    """Whether the claim that was evicted was only waiting."""
    return result.claim is not None and result.claim.state in ("WAITING", "OFFERED")


def evicted_words(name: str, claim_id: str, result: Evicted) -> str:
    """The sentence about an eviction that succeeded."""
    if result.outcome == "REMOVED":
        then = (
            f"; it was only waiting: {result.claim.owner} queues again, at the "
            "end, unless you end that process"
            if result.claim is not None and waited(result)
            else ""
        )
        return f"claim {claim_id} was removed from {name!r}{then}"
    until = (
        "until it has stopped"
        if result.blocks_until is None
        else f"until {output.clock_time(result.blocks_until, time.time())} at the latest"
    )
    return f"claim {claim_id} is evicted; {name!r} stays blocked {until}"


def asked_words(name: str, claim_id: str, claim: ClaimInfo | None) -> str:
    """The sentence about a holder that was asked to release; ``claim``: as it is now, None if ended."""
    if claim is None:
        return f"claim {claim_id} of {name!r} was asked, and has ended since"
    if claim.note.get("acquire"):
        return (
            f"claim {claim_id} of {name!r} has the request, but no process is attached to it that could "
            f"hear of it: {claim.owner} sees it with lockkit explain"
        )
    return (
        f"{claim.owner} is asked to release {name!r}, and hears of it within "
        f"{durations.show(claim.ttl / 3)} if it renews"
    )
