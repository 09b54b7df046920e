"""What SQLite's errors mean: the one table that maps them onto Refused and Unknown.

SQLite names its result codes (sqlite.org/rescode.html); Python passes the name on since 3.11. A write that fails is
rolled back, so what is listed here was definitely not applied. The unlisted (input/output errors, out of memory) may
have been.
"""

from __future__ import annotations

import sqlite3

from lockkit.errors import BackendUnavailable, IncompatibleLayout, LockkitError, PermissionDenied
from lockkit.spi import Refused, Unknown

__all__ = ["busy", "inherited", "is_busy", "mapped", "no_log"]

_TABLE: dict[str, tuple[type[LockkitError], str, str]] = {
    "SQLITE_FULL": (BackendUnavailable, "the disk or quota is full", "free some space"),
    "SQLITE_READONLY": (
        PermissionDenied,
        "it cannot be written to",
        "check the owner and mode of the file and its folder, and that the file system is not mounted read-only",
    ),
    "SQLITE_PERM": (
        PermissionDenied,
        "access is denied",
        "check the owner and mode of the file and its folder",
    ),
    "SQLITE_AUTH": (
        PermissionDenied,
        "access is denied",
        "check the owner and mode of the file and its folder",
    ),
    "SQLITE_CANTOPEN": (
        BackendUnavailable,
        "it cannot be opened or created",
        "check that its folder exists and that this user may write to it",
    ),
    "SQLITE_NOTADB": (BackendUnavailable, "it is not a SQLite database", "move it away or name another file"),
    "SQLITE_CORRUPT": (
        BackendUnavailable,
        "it is damaged",
        "stop its users and move it away with its -wal and -shm files; a new one is created, fences go on rising",
    ),
    "SQLITE_NOLFS": (BackendUnavailable, "its file system cannot hold it", "put it on a local file system"),
    "SQLITE_ERROR": (
        IncompatibleLayout,
        "its tables are not as this version of lockkit knows them",
        "upgrade lockkit, or name another file",
    ),
}


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another connection is in the way, so that the same statement may succeed in a moment."""
    return _name(error).startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def busy(path: str) -> Refused:
    """The refusal for a file that stayed busy for the whole budget."""
    return Refused(
        BackendUnavailable(
            f"{path} is busy: other processes kept it locked",
            hint="if it lasts, look for a stopped process: fuser",
        )
    )


def inherited(path: str) -> Refused:
    """The refusal for a store that was closed, or that a forked child has from its parent."""
    return Refused(
        BackendUnavailable(
            f"{path} is not open in this process", hint="a forked child calls lockkit.connect() for itself"
        ),
        retry=False,
    )


def no_log(path: str) -> Refused:
    """The refusal for a file system on which SQLite has no write-ahead log (it needs shared memory)."""
    return Refused(
        BackendUnavailable(
            f"cannot use {path}: no write-ahead log there", hint="put it on a local file system"
        ),
        retry=False,
    )


def mapped(error: sqlite3.Error, path: str) -> Refused | Unknown:
    """Translate an error of SQLite's."""
    name = _name(error)
    if is_busy(error):
        return busy(path)
    for listed, (kind, what, hint) in _TABLE.items():
        if name == listed or name.startswith(listed + "_"):
            return Refused(kind(f"cannot use {path}: {what} ({error})", hint=hint), retry=False)
    return Unknown(
        BackendUnavailable(
            f"{path} failed: {name or type(error).__name__}: {error}", hint="run: lockkit doctor"
        )
    )


def _name(error: sqlite3.Error) -> str:
    return str(getattr(error, "sqlite_errorname", None) or "")
