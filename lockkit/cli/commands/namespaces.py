"""``lockkit namespaces``: the namespaces of a store."""

from __future__ import annotations

from lockkit.cli import drains, output
from lockkit.cli.base import Session
from lockkit.cli.base import command as make
from lockkit.views.looking import seen

__all__ = ["command"]


@make(
    "namespaces",
    examples="""
lockkit namespaces
lockkit namespaces --json | jq -r '.namespaces[]'
""",
)
def command(session: Session) -> None:
    """List the namespaces of the store in which there are claims, or that are drained.

    A namespace of lapsed claims may still be listed. Redis scans every key of the server, 1,000 at a time.
    """
    with session.client() as client:
        found = client.namespaces()
        marks = {one: mark for one in found if (mark := seen(client, one)) is not None}
        if session.json:
            from lockkit.cli import documents

            output.print_json(
                documents.Namespaces, store=client, namespaces=found, drained=marks.values(), indent=True
            )
            return
    rows = [f"{one}  ({drains.short(marks[one])})" if one in marks else one for one in found]
    output.say("\n".join(rows) if rows else "no namespace has claims")
