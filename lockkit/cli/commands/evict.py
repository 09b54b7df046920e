"""``lockkit evict``: force one named claim out."""

from __future__ import annotations

import sys

import click

from lockkit.cli import exits, intervening, output
from lockkit.cli.base import Session, option
from lockkit.cli.base import command as make
from lockkit.cli.commands.explain import ways_out
from lockkit.cli.parameters import NAME
from lockkit.cli.suggesting import as_called

__all__ = ["command"]


@make(
    "evict",
    examples="""
lockkit explain backup        # shows the claim and this very line
lockkit evict backup --claim 3f2a9c01b7de --reason "hung since midnight"
""",
)
@click.argument("name", type=NAME)
@intervening.CLAIM
@option("--reason", required=True, metavar="TEXT", help="Why. The evicted user sees it, and it is logged.")
@option("--now", is_flag=True, help="Don't wait until the holder has stopped. Then two may work at once.")
def command(session: Session, name: str, *, claim_id: str, reason: str, now: bool) -> int:
    """Force one claim out of the lock NAME. Another claim that holds the lock by now is not affected.

    The holder learns that its lock is lost. The next in the queue gets the lock only when the holder must
    have stopped; with --now it gets the lock at once.

    NAME may be the UUID of a GPU of this host, or at least 8 characters of one.
    """
    if not reason.strip():
        raise click.UsageError("--reason must not be empty", click.get_current_context())
    with session.client() as client:
        with intervening.explained(session, client, name, "the claim may have been evicted"):
            name = intervening.lock_meant(client, name)
            result = intervening.evict(client, name, claim_id, reason=reason, now=now)
        if session.json:
            from lockkit.views import documents

            output.print_json(
                documents.Evict,
                result,
                store=client,
                name=name,
                claim_id=claim_id,
                reason=reason,
                now=now,
                indent=True,
            )
            return exits.OK
    claim = result.claim
    output.say(intervening.evicted_words(name, claim_id, result))
    if result.outcome == "REMOVED":
        if now and not intervening.waited(result):
            output.say("--now: the holder may continue to work until it notices", stream=sys.stderr)
    elif claim is not None:
        output.say("\n".join(ways_out(claim._replace(evicted=True), *as_called(session))))
    return exits.OK
