"""``lockkit status``: holders and waiters, once or live."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from lockkit.cli import drains, output
from lockkit.cli.base import Session, option
from lockkit.cli.base import command as make
from lockkit.cli.looking import summary_words
from lockkit.cli.parameters import NAME, Duration, Number
from lockkit.cli.signals import Signals
from lockkit.cli.suggesting import as_called, gpus_meant
from lockkit.cli.updates import between_updates
from lockkit.cli.watching import print_each, redraw, trying_again
from lockkit.config.suggesting import SameStore
from lockkit.errors import BackendError, IncompatibleLayout, PermissionDenied
from lockkit.lib.printable import printable
from lockkit.protocol.denials import drain_ends
from lockkit.views.looking import SORTS, Asked, Look, Sort, look

if TYPE_CHECKING:
    from lockkit.facts import LockInfo
    from lockkit.sync.client import Client

__all__ = ["command"]

_MANY = 100
"""Locks that are shown on a terminal, unless --limit says otherwise."""
_AROUND = 8
"""Rows of a terminal that a live table leaves to the text around it."""


@make(
    "status",
    examples="""
lockkit status                     # every lock that is held or waited for
lockkit status 'team-01/*' --sort waiters --limit 20
lockkit status backup --watch      # live; Ctrl-C ends it
lockkit status --json | jq '.locks[].name'
""",
)
@click.argument("name", type=NAME, required=False)
@option(
    "--sort",
    type=click.Choice(SORTS),
    help="The order: the longest wait first (age), the most waiters first (waiters), or by name."
    "  [default: name; age with --watch]",
)
@option(
    "--limit",
    type=Number(0),
    metavar="N",
    help="Show N locks at most; 0 for all.  [default: 100 on a terminal, what fits with --watch, else all]",
)
@option(
    "--watch",
    is_flag=True,
    help="Update the table again and again; with --json, print one document per line.",
)
@option("--interval", type=Duration(), help="Time between two updates of --watch.  [default: 1s]")
@option("--deep", is_flag=True, help="Scan the whole store, in case its index of names is incomplete.")
def command(
    session: Session,
    name: str | None,
    *,
    sort: Sort | None,
    limit: int | None,
    watch: bool,
    interval: float | None,
    deep: bool,
) -> None:
    """Show who holds which lock, since when, until when, and how many wait.

    Without NAME: every lock that is held or waited for. NAME may be a pattern: * matches any text, ? one
    character, [ab] one of these. Claims are shown by claim id, never by token. The last row counts locks.
    """
    between = between_updates(interval, watch=watch, usual=1.0)
    most = _limit(session, watch=watch) if limit is None else (limit or None)
    asked = Asked(name, sort or ("age" if watch else "name"), most, deep)
    with session.client() as client:
        if not watch:
            _show(session, client, asked, look(client, asked))
            return
        try:
            with Signals():  # so that the cursor is shown again, however the command ends
                _watch(session, client, asked, between)
        except KeyboardInterrupt:
            return  # Ctrl-C is the normal way to end it


def _limit(session: Session, *, watch: bool) -> int | None:
    """The locks to show if --limit does not say: as many as a person can read, and all for a program."""
    if session.json or not sys.stdout.isatty():
        return None
    if not watch:
        return _MANY
    from shutil import get_terminal_size

    return max(get_terminal_size((80, 24)).lines - _AROUND, 1)


def _show(session: Session, client: Client, asked: Asked, found: Look) -> None:
    if session.json:
        from lockkit.views.status import status

        output.write_json(status(client, found), indent=True)
        return
    output.say(f"{output.store_words(client)}, namespace {client.namespace}")
    if found.locks:
        from lockkit.cli.lock_table import table_of
        from lockkit.cli.tables import show, width

        show(table_of(found.shown, width(), full=not sys.stdout.isatty()))
    elif not found.unread:
        matching = "" if asked.name is None else f" whose name matches {asked.name!r}"
        output.say(f"no lock{matching} is held or waited for")
    for row in _below(session, client, asked, found):
        output.say(row)


def _below(session: Session, client: Client, asked: Asked, found: Look) -> list[str]:
    """The rows below the table."""
    told = (
        []
        if found.drained is None
        else [f"{drains.told(found.drained)}; {drain_ends(found.drained, SameStore(*as_called(session)))}"]
    )
    told += [f"{name!r} cannot be read: {error.message}" for name, error in found.unread.items()]
    if asked.one:
        told += [free for info in found.locks if (free := _free(info))]
    if not asked.one:
        return [*told, summary_words(found, time.time())] if len(found.locks) > 1 else told
    if found.traces is not None:
        from lockkit.cli import traces

        name, meant = str(asked.name), gpus_meant(session, client, str(asked.name)) or ""
        told.append(traces.row(name, found.traces, time.time(), *as_called(session), meant=bool(meant)))
        told.append(meant)
    return [row for row in told if row]


def _free(info: LockInfo) -> str:
    """The row about the permits of a semaphore; empty for other locks."""
    if not info.claims or info.claims[0].kind != "semaphore":
        return ""
    free = f"{info.available} of {info.capacity} permits are free"
    return f"{free}; a new claim would come after those that wait" if info.waiters else free


def _watch(session: Session, client: Client, asked: Asked, interval: float) -> None:
    if session.json or not output.colour():
        print_each(
            session, _looks(client, asked, interval), lambda found: _show(session, client, asked, found)
        )
        return
    from rich.live import Live
    from rich.markup import escape

    from lockkit.cli.lock_table import table_of
    from lockkit.cli.tables import width

    with Live(auto_refresh=False, screen=False) as live:
        locks: Sequence[LockInfo] = []
        lines: list[str] = []
        for found in _looks(client, asked, interval):
            if isinstance(found, BackendError):
                told = [trying_again(found), *lines]  # the last state stays on the screen, with its time
            else:
                locks = found.shown
                place = f"{client.url}, namespace {client.namespace}, {time.strftime('%H:%M:%S')}"
                told = lines = [*_below(session, client, asked, found), place]
            table = table_of(locks, width())
            table.caption = escape(printable("\n".join(told), lines=True))
            redraw(live, table)


def _looks(client: Client, asked: Asked, interval: float) -> Iterator[Look | BackendError]:
    """Look at the store repeatedly. A temporary error is yielded instead; the first look raises it."""
    found: Look | BackendError = look(client, asked)
    while True:
        yield found
        time.sleep(interval)
        try:
            found = look(client, asked)
        except (PermissionDenied, IncompatibleLayout):
            raise
        except BackendError as error:
            found = error
