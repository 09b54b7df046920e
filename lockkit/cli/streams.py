"""Safe standard streams, even if they are closed or cannot be written to: cron, daemons, full disks, ASCII.

A closed descriptor 1 is dangerous: the next opened file gets this number, and a guarded command would print
into that file, for instance the store. So the descriptors 0, 1 and 2 are opened before anything else.
"""

from __future__ import annotations

import errno
import io
import os
import sys

from lockkit.cli import exits
from lockkit.cli.rows import Rows

__all__ = ["forget_stdout", "prepare", "unwritable"]

_UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})


def prepare() -> None:
    """Open /dev/null for each closed standard stream, and write whole rows to stderr, ignoring failures."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # The kernel assigns the lowest free number, which is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 (for as long as we live)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    elif isinstance(sys.stdout, io.TextIOWrapper):
        # For names that the encoding cannot express, as on stderr.
        sys.stdout.reconfigure(errors="backslashreplace")
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    elif isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = Rows(sys.stderr)


def unwritable(error: BaseException) -> exits.CommandFailed | None:
    """The error to report if standard output could not be written; None for any other error."""
    if isinstance(error, OSError) and error.errno in _UNWRITABLE and error.filename is None:
        return exits.CommandFailed(
            f"cannot write to standard output: {error.strerror}", code=exits.UNAVAILABLE, kind="unwritable"
        )
    return None


def forget_stdout() -> None:
    """Discard pending output: Python would flush it at exit, and report the same error again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
