"""``lockkit resize``: change the capacity of a semaphore in use."""

from __future__ import annotations

import click

from lockkit.cli import output
from lockkit.cli.base import Session
from lockkit.cli.base import command as make
from lockkit.cli.parameters import CAPACITY, NAME
from lockkit.notes.members import in_pool
from lockkit.notes.records import fixed_capacity

__all__ = ["command"]


@make(
    "resize",
    examples="""
lockkit resize licences 6          # then start new ones with --capacity 6
lockkit resize '@pool/gpu%2Fbox/UUID' 81920   # a GPU of the host box, in MiB
""",
)
@click.argument("name", type=NAME)
@click.argument("capacity", type=CAPACITY)
def command(session: Session, name: str, capacity: int) -> None:
    """Change the capacity of all claims of the semaphore NAME to CAPACITY, in one step.

    Holders keep the lock; nothing more is granted until they fit. Waiters that can never fit get an error.
    Later commands must use the new capacity. A plain lock or a reader/writer lock is refused.

    The capacity of a GPU, its memory in MiB, is fixed in the record of its queue, which is changed first;
    later requests for the GPU use it by themselves. A GPU that is held or waited for as a whole cannot grow
    until that claim is gone.
    """
    with session.client() as client:
        count = client.resize(name, capacity)
        record = client.record(name) if in_pool(name) and not count else None
        if session.json:
            from lockkit.cli import documents

            output.print_json(documents.Resize, store=client, name=name, capacity=capacity, claims=count)
            return
    fixed = record is not None and fixed_capacity(record.value) is not None
    if count:
        output.say(f"{name!r}: {count} claim{'s' if count > 1 else ''}, capacity {capacity}")
    else:
        after = "the next claim sets the capacity" if not fixed else f"its record has capacity {capacity} now"
        output.say(f"{name!r} has no claims; {after}")
