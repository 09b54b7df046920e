"""``lockkit resize``: change the capacity of a semaphore in use."""

from __future__ import annotations

import click

from lockkit.cli import output
from lockkit.cli.base import CAPACITY, NAME, Session
from lockkit.cli.base import command as make

__all__ = ["command"]


@make(
    "resize",
    examples="""
lockkit resize licences 6          # then start new ones with --capacity 6
""",
)
@click.argument("name", type=NAME)
@click.argument("capacity", type=CAPACITY)
def command(session: Session, name: str, capacity: int) -> None:
    """Change the capacity of all claims of the semaphore NAME to CAPACITY, in one step.

    Holders keep the lock; nothing more is granted until they fit. Waiters that can never fit get an error. Later commands must use
    the new capacity. A plain lock or a reader/writer lock is refused.
    """
    with session.client() as client:
        count = client.resize(name, capacity)
        if session.json:
            from lockkit.cli import documents

            output.write_json(
                documents.Resize(
                    store=output.store(client),
                    name=name,
                    capacity=capacity,
                    claims=count,
                )
            )
            return
    if count:
        output.say(f"{name!r}: {count} claim{'s' if count > 1 else ''}, capacity {capacity}")
    else:
        output.say(f"{name!r} has no claims; the next claim sets the capacity")
