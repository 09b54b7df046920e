"""``lockkit history``: who held what and when, by the event journal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

import click

from lockkit.cli import exits, output, past
from lockkit.cli.base import Session, option
from lockkit.cli.base import command as make
from lockkit.cli.parameters import DURATION, NAME, File, Number
from lockkit.lib.printable import printable
from lockkit.observe.past import ENDS, Happening, PastHold, PastWait
from lockkit.values import durations
from lockkit.values.durations import rfc3339

if TYPE_CHECKING:
    from lockkit.observe.past import History, StoreKey

__all__ = ["command"]

Fact: TypeAlias = PastHold | PastWait | Happening

_SHOWN = 30
"""Rows for one lock on a terminal, unless stated."""


@make(
    "history",
    examples="""
lockkit history                     # everything that the journal has
lockkit history backup --since 1d
lockkit history --since 1h --json
lockkit history backup one/events.jsonl two/events.jsonl
""",
)
@click.argument("name", type=NAME, required=False)
@click.argument("files", metavar="[FILES]...", type=File(), nargs=-1)
@option("--since", type=DURATION, metavar="TIME", help=past.SINCE)
@option(
    "--last",
    type=Number(1, 1_000_000),
    metavar="N",
    help="The last N rows for each lock.  [default: 30 on a terminal, else all]",
)
def command(
    session: Session, name: str | None, files: tuple[str, ...], *, since: float | None, last: int | None
) -> int:
    """Show who held which lock and when, who waited for how long, and what was lost, evicted or cleaned up.

    The source is the event journal, which the setting journal turns on (journal = true, or
    LOCKKIT_JOURNAL=1): what happened before is not known. Without NAME all locks are shown; --url and
    --namespace leave out other stores and namespaces. FILES are journals of other hosts; a first argument
    that is a file counts as one. On a terminal, each lock has a timeline; in a pipe, there is one row for
    each hold.

    Exit code: 0, or 1 if there is no journal.
    """
    if name is not None and (name.endswith(".jsonl") or ".jsonl." in name):
        files = (name, *files)
        name = None
    history = past.read(session, files, name, since)
    if session.json:
        from lockkit.views import history as views

        output.write_json(views.document(history), indent=True)
        return exits.OK
    if sys.stdout.isatty():
        _draw(history, last or _SHOWN)
    else:
        _list(history, last)
    for sentence in past.missing(history.gaps):
        output.say(f"missing: {sentence}", stream=sys.stderr)
    return exits.OK


def _draw(history: History, most: int) -> None:
    from lockkit.cli import tables, timeline

    locks: dict[tuple[StoreKey, str], tuple[list[PastHold], list[PastWait], list[Happening]]] = {}
    for hold in history.holds:
        locks.setdefault((hold.key, hold.name), ([], [], []))[0].append(hold)
    for wait in history.waits:
        locks.setdefault((wait.key, wait.name), ([], [], []))[1].append(wait)
    for happening in history.happenings:
        locks.setdefault((happening.key, happening.name), ([], [], []))[2].append(happening)
    if not locks:
        output.say("the journal has nothing of that")
    for lock, (holds, waits, happenings) in locks.items():
        parts = holds[-most:], waits[-most:], happenings[-most:]
        left = len(holds) + len(waits) + len(happenings) - len(parts[0]) - len(parts[1]) - len(parts[2])
        for row in timeline.rows(lock, *parts, tables.width(), ENDS):
            output.say(row)
        output.say(f"and {left:,} earlier rows: --last N\n" if left else "")


def _list(history: History, most: int | None) -> None:
    from lockkit.cli import tables

    now = time.time()
    facts: list[Fact] = [*history.holds, *history.waits, *history.happenings]
    facts.sort(key=_began)
    del facts[: -most if most else 0]

    def rows() -> Iterator[Sequence[str]]:
        owners: dict[int, str] = {}  # many facts share one
        for one in facts:
            owner = owners.get(id(one.owner)) or owners.setdefault(id(one.owner), printable(str(one.owner)))
            began, what, *texts = rfc3339(_began(one)) or "", *_cells(one, now)
            yield began, *(printable(text, lines=True) for text in (one.name or "-", what, *texts)), owner

    tables.write(("began", "name", "what", "held", "waited", "claim", "fence", "owner"), rows)


def _began(one: Fact) -> float:
    if isinstance(one, Happening):
        return one.at
    return one.began if isinstance(one, PastHold) else one.ended - one.waited


def _cells(one: Fact, now: float) -> tuple[str, str, str, str, str]:
    """The cells of a fact: what happened, how long it was held and waited for, its claim and its fence."""
    if isinstance(one, Happening):
        return f"{one.kind}: {one.text}", "-", "-", one.claim_id or "-", "-"
    waited = durations.show(one.waited)
    if isinstance(one, PastWait):
        return one.outcome, "-", waited, "-", "-"
    gone = one.ended is None and one.end
    held = "-" if gone else durations.show((one.ended or max(now, one.began)) - one.began)
    return ENDS.get(one.end, one.end), held, waited, one.claim_id, str(one.fence)
