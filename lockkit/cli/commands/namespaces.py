"""``lockkit namespaces``: the namespaces of a store."""

from __future__ import annotations

from lockkit.cli import output
from lockkit.cli.base import Session
from lockkit.cli.base import command as make

__all__ = ["command"]


@make(
    "namespaces",
    examples="""
lockkit namespaces
lockkit namespaces --json | jq -r '.namespaces[]'
""",
)
def command(session: Session) -> None:
    """List the namespaces of the store in which there are claims.

    A namespace whose claims have all lapsed may still be listed. On Redis, every key of the server is scanned, a thousand at a time.
    """
    with session.client() as client:
        found = client.namespaces()
        if session.json:
            from lockkit.cli import documents

            document = documents.Namespaces(store=output.store(client), namespaces=found)
            output.write_json(document, indent=True)
            return
    output.say("\n".join(found) if found else "no namespace has claims")
