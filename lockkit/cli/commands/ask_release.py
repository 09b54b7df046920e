"""``lockkit ask-release``: ask a holder to release its lock."""

from __future__ import annotations

import click

from lockkit.cli import exits, intervening, output
from lockkit.cli.base import Session, option
from lockkit.cli.base import command as make
from lockkit.cli.parameters import NAME, Remark

__all__ = ["command"]


@make(
    "ask-release",
    examples="""
lockkit explain backup        # shows the claim
lockkit ask-release backup --claim 3f2a9c01b7de --reason "the disk is needed"
lockkit ask-release GPU-54a033e8 --claim 3f2a9c01b7de --reason "it is idle"
""",
)
@click.argument("name", type=NAME)
@intervening.CLAIM
@option(
    "--reason", required=True, type=Remark(), metavar="TEXT", help="Why. The holder and other users see it."
)
def command(session: Session, name: str, *, claim_id: str, reason: str) -> int:
    """Ask the holder of the lock NAME to release it. Nothing is forced: lockkit evict does that.

    The holder sees the request at its next renewal, within a third of its ttl, and may ignore it: a Python
    program sees lease.release_requested, and lockkit run --on-ask sends its command a signal. status and
    explain show the request.

    NAME may be the UUID of a GPU of this host, or at least 8 characters of one.
    """
    with session.client() as client:
        with intervening.explained(session, client, name, "the holder may have been asked"):
            name = intervening.lock_meant(client, name)
            request = client.ask_release(name, claim_id, reason)
        claim = next((one for one in client.inspect(name).claims if one.claim_id == claim_id), None)
        if session.json:
            from lockkit.views import documents, making, parts

            output.print_json(
                documents.AskRelease,
                store=client,
                name=name,
                claim_id=claim_id,
                request=making.made_of(parts.ReleaseRequest, request, name=name),
                claim=claim,
                indent=True,
            )
            return exits.OK
    output.say(intervening.asked_words(name, claim_id, claim))
    return exits.OK
