"""``lockkit held``: whether a hold that ``acquire`` took still stands."""

from __future__ import annotations

import click

from lockkit.cli import exits, holds, output
from lockkit.cli.base import NAME, Session, option
from lockkit.cli.base import command as make

__all__ = ["command"]


@make(
    "held",
    examples="""
lockkit held deploy && ./next-step.sh
if ! lockkit held deploy -q; then echo "lost it" >&2; exit 1; fi
""",
)
@click.argument("name", type=NAME)
@option("-q", "--quiet", is_flag=True, help="Say nothing; the exit code tells.")
def command(session: Session, name: str, *, quiet: bool) -> int:
    """Tell whether the hold of NAME that lockkit acquire took still stands. Exit code: 0 held, 1 not held.

    Asks the store. It says nothing about holds of others: that is lockkit status.
    """
    with session.client() as client:
        standing, gone = holds.find(client, name)
        found = [one.claim for one in standing if not one.claim.evicted]
        if session.json:
            output.write_json(
                {
                    "schema": "lockkit.held/1",
                    "store": output.store(client),
                    "name": name,
                    "held": bool(found),
                    "claims": [{"claim_id": claim.claim_id, "fence": claim.fence} for claim in found],
                }
            )
        elif not quiet:
            told, hint = ("", None) if standing or gone else holds.absent(client, name)
            where = (f": {told}" if told else "") + (f" ({hint})" if hint else "")
            print("held" if found else f"not held{where}")
    return exits.OK if found else exits.FAILED
