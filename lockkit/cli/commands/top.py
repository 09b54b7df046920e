"""``lockkit top``: who blocks whom now, live on the whole terminal."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import click

from lockkit.cli import exits, logs
from lockkit.cli.base import Session, option
from lockkit.cli.base import command as make
from lockkit.cli.card_options import SIMULATE
from lockkit.cli.parameters import NAME, Duration
from lockkit.cli.signals import Signals, Terminated
from lockkit.cli.suggesting import as_called
from lockkit.config.suggesting import quoted
from lockkit.views.looking import SORTS, Asked, Sort, look

__all__ = ["command"]

_LOGGED = 10
"""Log lines from the time of the screen, the last ones, that are written when it has ended."""


@make(
    "top",
    examples="""
lockkit top                        # every lock that is held or waited for
lockkit top 'team-01/*' --sort waiters
lockkit top --interval 5s --url redis://locks.example.org
""",
)
@click.argument("name", type=NAME, required=False)
@option(
    "--sort",
    type=click.Choice(SORTS),
    default="age",
    help="The order at first: the longest wait (age), the most waiters, or the name.  [default: age]",
)
@option("--interval", type=Duration(), default="1s", help="Time between two updates.  [default: 1s]")
@SIMULATE
def command(session: Session, name: str | None, *, sort: Sort, interval: float, simulate: int | None) -> None:
    """Show who blocks whom, live on the whole terminal: locks with holders and queues, GPUs, failures.

    Without NAME: every lock that is held or waited for. NAME may be a pattern, as for lockkit status. The
    longest wait is on top.

    Keys: arrows and pages move; Enter opens a lock with its whole queue; s sorts; / filters; 1, 2 and 3 are
    locks, GPUs and failures; e evicts the claim under the cursor, a asks its holder to release: both first
    say what will happen, and ask for a reason; q ends.

    While the store does not answer, the last state stays, with "stale since". A large store is read less
    often, so that reading takes a fifth of the time at most. Needs the extra top (pip install "lockkit[top]")
    and a terminal.
    """
    if session.json or not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM") == "dumb":
        words = f" {quoted(name)}" if name is not None else ""
        what = "writes no JSON" if session.json else "needs a terminal"
        as_json = " --json" if session.json else ""
        raise exits.CommandFailed(
            f"lockkit top {what}",
            code=exits.USAGE,
            kind="usage",
            hint=f"for a pipe or a log: lockkit status{words} --watch{as_json}{as_called(session)[0]}",
        )
    try:
        from lockkit.cli.top.app import Top
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "textual":
            raise
        raise exits.CommandFailed(
            "lockkit top needs textual",
            code=exits.UNAVAILABLE,
            kind="missing",
            hint='pip install "lockkit[top]"; without it: lockkit status --watch',
        ) from error
    asked = Asked(name, sort)
    with session.client() as client:
        first = look(client, asked)  # an error is told before the screen is taken
        app = Top(client, asked, interval, suggested=as_called(session), simulate=simulate, first=first)
        # Log lines would be written across the screen, which shows the same: that the store is away.
        with Signals(), logs.held_back(lambda _: False, _LOGGED), _drawing():
            ended = app.run()
        if app.failure is not None:
            raise app.failure
    if ended is not None and ended != signal.SIGINT:
        raise Terminated(ended)


class _Drawing(io.TextIOWrapper):
    """A stream for textual: an OSError would end its drawing thread, and all else would hang."""

    def write(self, text: str, /) -> int:
        with suppress(OSError):  # the terminal is gone, as the application sees by itself
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


@contextmanager
def _drawing() -> Iterator[None]:
    """Give textual a stream to draw on: :class:`lockkit.cli.rows.Rows` has taken over ``sys.__stderr__``."""
    before = sys.__stderr__
    terminal = _Drawing(
        io.BufferedWriter(io.FileIO(1, "w", closefd=False)), encoding="utf-8", errors="backslashreplace"
    )
    sys.__stderr__ = terminal  # type: ignore[misc]  # it is Final for those who do not replace it
    try:
        yield
    finally:
        sys.__stderr__ = before  # type: ignore[misc]
        with suppress(OSError):
            terminal.close()
