"""``lockkit held``: check whether a lock that ``acquire`` took is still held."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from lockkit.cli import eviction, exits, holds, output
from lockkit.cli.base import Session, option
from lockkit.cli.base import command as make
from lockkit.cli.parameters import NAME
from lockkit.cli.suggesting import as_called
from lockkit.config.suggesting import command_line

if TYPE_CHECKING:
    from lockkit.sync.client import Client

__all__ = ["command"]


@make(
    "held",
    examples="""
lockkit held deploy && ./next-step.sh
if ! lockkit held deploy -q; then echo "lost it" >&2; exit 1; fi
""",
)
@click.argument("name", type=NAME)
@option("-q", "--quiet", is_flag=True, help="Print nothing; use the exit code.")
def command(session: Session, name: str, *, quiet: bool) -> int:
    """Check whether the lock NAME that lockkit acquire took is still held. Exit code: 0 held, 1 not held.

    Only holds of this user on this host count. For all others use lockkit status.
    """
    with session.client() as client:
        ours = holds.find(client, name)
        found = [one.claim for one in ours.standing if not one.claim.evicted]
        if session.json:
            from lockkit.cli import documents

            output.print_json(documents.Held, store=client, name=name, held=bool(found), claims=found)
        elif not quiet:
            output.say("held" if found else f"not held{_why(session, client, name, ours)}")
    return exits.OK if found else exits.FAILED


def _why(session: Session, client: Client, name: str, ours: holds.Found) -> str:
    if not ours.standing and not ours.gone:
        told, hint = holds.absent(client, name)
        return f": {told}" + (f" ({hint})" if hint else "")
    if not ours.standing:
        return ""
    claim = ours.standing[0].claim
    said = eviction.mark(claim.note) or {"by": "somebody", "reason": ""}
    until = "" if claim.deadline is None else f" until {output.clock_time(claim.deadline, time.time())}"
    options, first = as_called(session)
    release = command_line("release", name, options=options)
    return (
        f": evicted by {said['by']}: {said['reason']}; it still blocks "
        f"{name!r}{until}{first}: {release} ends it"
    )
