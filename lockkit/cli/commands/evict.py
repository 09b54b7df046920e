"""``lockkit evict``: force one named claim out."""

from __future__ import annotations

import sys
import time

import click

from lockkit.cli import completing, exits, output
from lockkit.cli.base import NAME, Session, option
from lockkit.cli.base import command as make
from lockkit.cli.commands.explain import ways_out
from lockkit.cli.suggesting import absent_hint, as_called, look
from lockkit.errors import OutcomeUnknown
from lockkit.remarks import gone

__all__ = ["command"]


@make(
    "evict",
    examples="""
lockkit explain backup        # shows the claim and this very line
lockkit evict backup --claim 3f2a9c01b7de --reason "hung since midnight"
""",
)
@click.argument("name", type=NAME)
@option(
    "--claim",
    "claim_id",
    required=True,
    metavar="ID",
    shell_complete=completing.claims,
    help="The claim, as status and explain show it.",
)
@option("--reason", required=True, metavar="TEXT", help="Why. The evicted user sees it, and it is logged.")
@option("--now", is_flag=True, help="Don't wait until the holder has stopped. Then two may work at once.")
def command(session: Session, name: str, *, claim_id: str, reason: str, now: bool) -> int:
    """Force one claim out of the lock NAME. If another claim holds the lock by now, that claim is not affected.

    The holder is told that its lock is lost. The next in the queue gets the lock only when the holder must have stopped; with --now
    it gets the lock at once.
    """
    if not reason.strip():
        raise click.UsageError("--reason must not be empty", click.get_current_context())
    see = look(session, name)
    with session.client() as client:
        try:
            result = client.evict(name, claim_id, reason=reason, now=now)
        except OutcomeUnknown as error:
            error.hint = "; ".join(filter(None, [error.hint, f"the claim may have been evicted; {see}"]))
            raise
        if result.outcome == "ABSENT":
            missing = gone(client.inspect(name), claim_id)
            raise exits.CommandFailed(
                missing.message,
                code=exits.FAILED,
                kind="absent",
                name=name,
                holder=missing.holder,
                hint=absent_hint(session, client, name, missing.hint or ""),
            )
        if session.json:
            from lockkit.views import acting

            output.write_json(acting.evicted(client, name, claim_id, result, reason, now=now), indent=True)
            return exits.OK
    claim = result.claim
    if result.outcome == "REMOVED":
        waited = claim is not None and claim.state in ("WAITING", "OFFERED")
        then = (
            f"; it was only waiting: {claim.owner} queues again, at the end, unless you end that process"
            if claim and waited
            else ""
        )
        output.say(f"claim {claim_id} was removed from {name!r}{then}")
        if now and not waited:
            output.say("--now: the holder may continue to work until it notices", stream=sys.stderr)
        return exits.OK
    until = (
        "until it has stopped"
        if result.blocks_until is None
        else f"until {output.clock_time(result.blocks_until, time.time())} at the latest"
    )
    output.say(f"claim {claim_id} is evicted; {name!r} stays blocked {until}")
    if claim is not None:
        output.say("\n".join(ways_out(claim._replace(evicted=True), *as_called(session))))
    return exits.OK
