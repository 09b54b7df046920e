"""``lockkit status``: holders and waiters, once or live."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from lockkit import durations
from lockkit.cli import exits, output
from lockkit.cli.base import NAME, Duration, Session, option
from lockkit.cli.base import command as make
from lockkit.cli.signals import Signals
from lockkit.errors import BackendError, IncompatibleLayout, LockkitError, PermissionDenied
from lockkit.printable import printable

if TYPE_CHECKING:
    from rich.table import Table

    from lockkit.cli import documents
    from lockkit.client import Client
    from lockkit.facts import ClaimInfo, LockInfo

__all__ = ["command"]

_Unread = dict[str, LockkitError]
_COLOURS = {"held": "green", "lingering": "yellow", "waiting": "yellow", "free": "dim"}
_WIDE, _NARROW = 120, 60
"""Columns."""


@make(
    "status",
    examples="""
lockkit status                     # every lock that is held or waited for
lockkit status backup --watch      # live; Ctrl-C ends it
lockkit status --json | jq '.locks[].name'
""",
)
@click.argument("name", type=NAME, required=False)
@option(
    "--watch",
    is_flag=True,
    help="Update the table again and again; with --json, print one document per line.",
)
@option(
    "--interval", type=Duration(), default=1.0, help="Time between two updates of --watch.  [default: 1s]"
)
@option("--deep", is_flag=True, help="Scan the whole store, in case its index of names is incomplete.")
def command(session: Session, name: str | None, *, watch: bool, interval: float, deep: bool) -> None:
    """Show who holds which lock, since when, until when, and how many wait.

    Without NAME: every lock that is held or waited for. Claims are shown by claim id, never by token.
    """
    with session.client() as client:
        if not watch:
            _show(session, client, *_look(client, name, deep=deep))
            return
        try:
            with Signals():  # so that the cursor is shown again, however the command ends
                _watch(session, client, name, interval, deep=deep)
        except KeyboardInterrupt:
            return  # Ctrl-C is the normal way to end it


def _look(client: Client, name: str | None, *, deep: bool) -> tuple[list[LockInfo], _Unread]:
    """The locks, and for each lock that this user may not read the error, so that it does not hide the others."""
    if name is not None:
        return [client.inspect(name)], {}
    locks: list[LockInfo] = []
    unread: _Unread = {}
    for one in client.names(deep=deep):
        try:
            locks.append(client.inspect(one))
        except (PermissionDenied, IncompatibleLayout) as error:
            unread[one] = error
    return [info for info in locks if info.claims], unread


def _document(client: Client, locks: list[LockInfo], unread: _Unread) -> documents.Status:
    from lockkit.cli import documents, parts

    now = time.time()
    return documents.Status(
        store=output.store(client),
        read_at=output.rfc3339(now),
        read_at_seconds=now,
        locks=[output.lock(info) for info in locks],
        unread=[
            parts.Unread(
                name=name, error=type(error).__name__, message=error.message, hint=error.hint or None
            )
            for name, error in unread.items()
        ],
    )


def _show(session: Session, client: Client, locks: list[LockInfo], unread: _Unread) -> None:
    if session.json:
        output.write_json(_document(client, locks, unread), indent=True)
        return
    output.say(f"{output.store_words(client)}, namespace {client.namespace}")
    if locks:
        from lockkit.cli.tables import show, width

        show(_table(locks, width()))
    elif not unread:
        output.say("no lock is held or waited for")
    for line in _reasons(unread):
        output.say(line)


def _reasons(unread: _Unread) -> list[str]:
    return [f"{name!r} cannot be read: {error.message}" for name, error in unread.items()]


def _watch(session: Session, client: Client, name: str | None, interval: float, *, deep: bool) -> None:
    if session.json or not output.colour():
        for look in _looks(client, name, interval, deep=deep):
            if not isinstance(look, BackendError):
                _show(session, client, *look)
            elif session.json:
                output.write_json(exits.describe(look), stream=sys.stderr)
            else:
                output.say(_away(look))
            sys.stdout.flush()
    from rich.live import Live
    from rich.markup import escape

    from lockkit.cli.tables import width

    with Live(auto_refresh=False, screen=False) as live:
        locks: list[LockInfo] = []
        lines: list[str] = []
        for look in _looks(client, name, interval, deep=deep):
            if isinstance(look, BackendError):
                told = [_away(look), *lines]  # the last state stays on the screen, with its time
            else:
                locks, unread = look
                place = f"{client.url}, namespace {client.namespace}, {time.strftime('%H:%M:%S')}"
                told = lines = [*_reasons(unread), place]
            table = _table(locks, width())
            table.caption = escape(printable("\n".join(told), lines=True))
            live.update(table, refresh=True)


def _looks(
    client: Client, name: str | None, interval: float, *, deep: bool
) -> Iterator[tuple[list[LockInfo], _Unread] | BackendError]:
    """Look at the store again and again. An error that may pass is yielded instead; the first look raises it."""
    look: tuple[list[LockInfo], _Unread] | BackendError = _look(client, name, deep=deep)
    while True:
        yield look
        time.sleep(interval)
        try:
            look = _look(client, name, deep=deep)
        except (PermissionDenied, IncompatibleLayout):
            raise
        except BackendError as error:
            look = error


def _away(error: BackendError) -> str:
    return f"trying again: {error.message}"


def _table(locks: list[LockInfo], width: int) -> Table:
    """A table of all columns if they fit, of the most important ones at 80 columns, and of short lines below 60."""
    from lockkit.cli.tables import add, table

    wide, narrow = width >= _WIDE, width < _NARROW
    columns: tuple[str, ...] = ("name", "state", "claim", "holder", "since", "waiters")
    if wide:
        columns = (*columns[:-1], "deadline", "fence", "waiters")
    made = table(*(("locks",) if narrow else columns))
    now = time.time()
    for info in locks:
        state = output.lock_state(info)
        holders: list[ClaimInfo | None] = list(info.holders) or [None]
        for number, holder in enumerate(holders):
            first = number == 0
            cells = {
                "name": info.name if first else "",
                "state": _state(state, holder, short=not wide),
                "claim": holder.claim_id if holder else "",
                "holder": str(holder.owner) if holder else "",
                "since": durations.show(max(now - holder.since, 0)) if holder else "",
                "deadline": _deadline(holder, now) if holder else "",
                "fence": str(holder.fence) if holder else "",
                "waiters": str(len(info.waiters)) if first else "",
            }
            row = [_stacked(cells)] if narrow else [cells[column] for column in columns]
            add(made, *row, style=_COLOURS.get(state))
    return made


def _stacked(cells: dict[str, str]) -> str:
    waiters = f", {cells['waiters']} waiting" if cells["waiters"] else ""
    since = f", {cells['since']}" if cells["since"] else ""
    rows = [cells["name"], f"  {cells['state']}{since}{waiters}"]
    rows += [f"  {cells['holder']}", f"  claim {cells['claim']}"] if cells["claim"] else []
    return "\n".join(row for row in rows if row)


def _state(state: str, holder: ClaimInfo | None, *, short: bool) -> str:
    if holder is None:
        return state
    word = holder.state.lower()
    if holder.evicted:
        return "evicted" if short else f"{word}, evicted"
    if holder.kind == "mutex":
        return word
    of = "/" if short else " of "
    how = f"{holder.weight}{of}{holder.capacity}" if holder.kind == "semaphore" else holder.kind
    return f"{word} {how}" if short else f"{word} ({how})"


def _deadline(holder: ClaimInfo, now: float) -> str:
    if holder.deadline is None:
        return (
            "with its process" if holder.process_bound else f"{durations.show(holder.ttl)} after its process"
        )
    left = holder.deadline - now
    return f"in {durations.show(left)}" if left > 0 else "over"
