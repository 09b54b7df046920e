"""``lockkit report``: for how long users held locks and GPUs, held them idle, and waited."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from lockkit.cli import exits, output, past
from lockkit.cli.base import Session, option
from lockkit.cli.base import command as make
from lockkit.cli.parameters import DURATION, File
from lockkit.values import durations

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lockkit.observe.usage import LockUse

__all__ = ["command"]

_DAYS = 7 * 86_400.0
_SHOWN = 40
"""Rows on a terminal; in a pipe and in a document there are all."""


@make(
    "report",
    examples="""
lockkit report                      # the last 7 days
lockkit report --since 1d --json
lockkit report one/events.jsonl two/events.jsonl
""",
)
@click.argument("files", metavar="[FILES]...", type=File(), nargs=-1)
@option("--since", type=DURATION, metavar="TIME", help="From this long ago, e.g. 1d.  [default: 7d]")
def command(session: Session, files: tuple[str, ...], *, since: float | None) -> int:
    """Add up for how long each user held each lock or GPU, held a GPU that was reported idle, and waited.

    The source is the event journals, as for lockkit history; --url and --namespace leave out other stores and
    namespaces. Only the time within the period counts. A GPU counts as idle for as long as the event gpu_idle
    says, so it may have been idle for longer.

    Exit code: 0, or 1 if there is no journal.
    """
    from lockkit.observe.usage import uses

    until = time.time()
    began = until - (since or _DAYS)
    history = past.read(session, files, None, until - began)
    found = uses(history, began, until)
    if session.json:
        from lockkit.cli import documents

        output.print_json(documents.Use, history, since=began, until=until, uses=found, indent=True)
    else:
        _show(found, until - began)
        for sentence in past.missing(history.gaps):
            output.say(f"missing: {sentence}", stream=sys.stderr)
    return exits.OK


def _show(found: Sequence[LockUse], period: float) -> None:
    from lockkit.cli import tables, timeline

    if not found:
        output.say(f"nobody held or wanted a lock in the last {durations.show(period)}")
        return
    drawn = sys.stdout.isatty()
    width = max(8, min(40, tables.width() - 66)) if drawn else 0
    made = tables.table(
        "lock", "user", "holds", "held", "idle", "waited", "in vain", *(("held ",) if drawn else ())
    )
    most = max(use.held for use in found)
    several = len({use.key for use in found}) > 1
    for use in found[: _SHOWN if drawn else None]:
        chart = (timeline.span(use.held, most, width),) if drawn else ()
        tables.add(
            made,
            f"{use.card or use.name} ({use.key.namespace} on {use.key.store})"
            if several
            else use.card or use.name,
            use.user,
            f"{use.holds:,}",
            durations.show(use.held),
            durations.show(use.idle) if use.card else "-",
            durations.show(use.waited),
            f"{use.in_vain:,}",
            *chart,
        )
    tables.show(made)
    if drawn and len(found) > _SHOWN:
        output.say(f"and {len(found) - _SHOWN:,} more rows: --json")
    unknown = sum(use.open for use in found)
    if unknown:
        output.say(f"{unknown:,} holds have no known end, and their time does not count")
