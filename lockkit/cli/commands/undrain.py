"""``lockkit undrain``: give new locks in a namespace again."""

from __future__ import annotations

import click

from lockkit.cli import exits, output
from lockkit.cli.base import Session, in_namespace
from lockkit.cli.base import command as make
from lockkit.cli.parameters import NAMESPACE
from lockkit.lib.printable import printable

__all__ = ["command"]


@make(
    "undrain",
    examples="""
lockkit undrain prod
""",
)
@click.argument("drained", metavar="[NAMESPACE]", type=NAMESPACE, required=False)
def command(session: Session, drained: str | None) -> int:
    """Give new locks in NAMESPACE again, after lockkit drain.

    Without NAMESPACE: the namespace that is configured. Those who were refused must ask again themselves.
    """
    with in_namespace(session, drained).client() as client:
        mark = client.undrain()
        if session.json:
            from lockkit.cli import documents

            output.print_json(documents.Undrain, store=client, drained=mark, indent=True)
            return exits.OK
    if mark is None:
        output.say(f"namespace {client.namespace} was not drained")
    else:
        reason = f": {printable(mark.reason)}" if mark.reason else ""
        output.say(f"namespace {mark.namespace} gives new locks again; {mark.owner} had drained it{reason}")
    return exits.OK
