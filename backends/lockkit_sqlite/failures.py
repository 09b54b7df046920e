"""The meaning of SQLite's errors: the one table that maps them onto Refused and Unknown.

SQLite names its result codes (sqlite.org/rescode.html); Python passes the name on since 3.11. A write that fails is
rolled back, so what is listed here was definitely not applied. The unlisted (input/output errors, out of memory) may
have been.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from lockkit.errors import BackendUnavailable, IncompatibleLayout, LockkitError, PermissionDenied
from lockkit.store.spi import Refused, Unknown

__all__ = [
    "FULL",
    "busy",
    "free_space",
    "inherited",
    "is_busy",
    "mapped",
    "no_log",
    "shown",
    "swapped",
    "torn",
]

FULL = 256 << 10
"""Bytes of free space below which an input/output error is put down to a full disk: a new log and its index need some 70 KB."""

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


def torn(path: str) -> Refused:
    """The refusal for a process that was forked while its parent had the file open."""
    return Refused(
        BackendUnavailable(
            f"{path} cannot be used in this process: it was forked while its parent had the file open "
            "(by other means than os.fork, or a signal handler raised in the middle of it)",
            hint="fork with os.fork or multiprocessing, again if a signal handler raised; or start a new program",
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


def swapped(path: str, error: sqlite3.Error) -> Unknown:
    """The error of a request during which somebody removed or replaced the files; the next request finds them made anew."""
    return Unknown(
        BackendUnavailable(
            f"the files of {path} were removed or replaced under this process ({_name(error) or error})",
            hint="keep cleaners and backups away from them; to free a lock, use lockkit evict",
        )
    )


def mapped(error: sqlite3.Error, path: str) -> Refused | Unknown:
    """Translate an error of SQLite's."""
    name = _name(error)
    if is_busy(error):
        return busy(path)
    for listed, (kind, what, hint) in _TABLE.items():
        if name == listed or name.startswith(listed + "_"):
            full = f", {_left(path)}" if listed == "SQLITE_FULL" else ""
            return Refused(kind(f"cannot use {path}: {what}{full} ({error})", hint=hint), retry=False)
    free = free_space(path) if name.startswith("SQLITE_IOERR") else None
    if free is not None and free < FULL:
        # With no room for its log's index in shared memory, SQLite knows of no better name than an I/O error.
        told = f"{path} failed: the disk is full, {_left(path)} ({name}: {error})"
        return Unknown(BackendUnavailable(told, hint="free some space"))
    hint = f"look at the disk and what the kernel says of it: df -h {Path(path).parent}; dmesg"
    return Unknown(BackendUnavailable(f"{path} failed: {name or type(error).__name__}: {error}", hint=hint))


def free_space(path: str) -> int | None:
    """Bytes that this user may still write beside a file; None where the system does not say."""
    try:
        space = os.statvfs(Path(path).parent)
    except OSError:
        return None
    return space.f_bavail * space.f_frsize


def shown(size: int) -> str:
    """Bytes as people read them."""
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"


def _left(path: str) -> str:
    free = free_space(path)
    return f"{'free space unknown' if free is None else shown(free) + ' free'} in {Path(path).parent}"


def _name(error: sqlite3.Error) -> str:
    return str(getattr(error, "sqlite_errorname", None) or "")
