"""``--watch`` where the output is no terminal, or is JSON: each look is printed below the one before."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

from lockkit.cli import exits, output
from lockkit.cli.terminal import gone
from lockkit.errors import LockkitError

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

    from lockkit.cli.base import Session

__all__ = ["print_each", "redraw", "trying_again"]

T = TypeVar("T")


def print_each(session: Session, looks: Iterable[T | LockkitError], show: Callable[[T], None]) -> None:
    """Print look after look.

    A look may be an error that may pass.
    """
    for seen in looks:
        if not isinstance(seen, LockkitError):
            show(seen)
        elif session.json:
            output.write_json(exits.describe(seen), stream=sys.stderr)
        else:
            output.say(trying_again(seen))
        sys.stdout.flush()


def redraw(live: Live, table: Table) -> None:
    """Draw a table in the place of the last one.

    Raises:
        OSError: The terminal is gone. rich draws nothing then, and raises nothing.
    """
    if gone():
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    live.update(table, refresh=True)


def trying_again(error: LockkitError) -> str:
    """The sentence about an error that may pass."""
    return f"trying again: {error.message}"
