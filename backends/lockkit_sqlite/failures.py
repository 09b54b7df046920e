"""The meaning of SQLite's errors: the one table that maps them onto Refused and Unknown.

SQLite names its result codes (sqlite.org/rescode.html); Python passes the name on since 3.11. A write that
fails is rolled back, so an error listed here was definitely not applied. Any other (input/output errors, out
of memory) may have been.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from lockkit.errors import BackendUnavailable, IncompatibleLayout, LockkitError, PermissionDenied
from lockkit.store.spi import Refused, Unknown

__all__ = [
    "FULL",
    "adopted",
    "busy",
    "free_space",
    "in_use",
    "is_busy",
    "is_closed",
    "is_overtaken",
    "left",
    "link",
    "linked",
    "log_of_other_name",
    "mapped",
    "no_lock_file",
    "no_log",
    "not_its_lock_file",
    "raise_if_foreign",
    "retired",
    "shown",
    "swapped",
    "torn",
    "two_boots",
]

FULL = 256 << 10
"""Bytes free below which an input/output error is put down to a full disk: a log and index need 70 KB."""

_RIGHTS = "check the owner and mode of the file and its folder"
_TABLE: dict[str, tuple[type[LockkitError], str, str]] = {
    "SQLITE_FULL": (BackendUnavailable, "the disk or quota is full", "free some space"),
    "SQLITE_READONLY": (
        PermissionDenied,
        "it cannot be written to",
        f"{_RIGHTS}, and that the file system is not mounted read-only",
    ),
    "SQLITE_PERM": (PermissionDenied, "access is denied", _RIGHTS),
    "SQLITE_AUTH": (PermissionDenied, "access is denied", _RIGHTS),
    "SQLITE_CANTOPEN": (
        BackendUnavailable,
        "it cannot be opened or created",
        "check that its folder exists and that this user may write to it",
    ),
    "SQLITE_NOTADB": (BackendUnavailable, "it is not a SQLite database", "move it away or name another file"),
    "SQLITE_CORRUPT": (
        BackendUnavailable,
        "it is damaged",
        (
            "stop its users and move it away with its -wal and -shm files; "
            "a new one is created, fences go on rising"
        ),
    ),
    "SQLITE_NOLFS": (BackendUnavailable, "its file system cannot hold it", "put it on a local file system"),
    "SQLITE_ERROR": (
        IncompatibleLayout,
        "its tables are not those of this version of lockkit",
        "upgrade lockkit, or name another file",
    ),
}


def raise_if_foreign(error: OSError) -> None:
    """Raise an error again that the operating system did not report.

    A signal handler may raise an OSError as well, most likely TimeoutError. That says nothing of the files,
    and is left to the caller.
    """
    if error.errno is None:
        raise error


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another connection is in the way, so that the same statement may succeed in a moment."""
    return _name(error).startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def is_overtaken(error: sqlite3.Error) -> bool:
    """Whether another connection has written between the start of a statement's reading and its writing."""
    return _name(error) == "SQLITE_BUSY_SNAPSHOT"


def is_closed(error: sqlite3.Error) -> bool:
    """Whether the connection was closed before the statement, which was not run."""
    return isinstance(error, sqlite3.ProgrammingError) and "closed database" in str(error)


def busy(path: str, pids: Sequence[int] = ()) -> Refused:
    """The refusal for a file that stayed busy for the whole budget."""
    hint = "if it lasts, look for a stopped process: fuser"
    text = f"{path} is busy: other processes kept it locked{_pids(pids)}"
    return Refused(BackendUnavailable(text, hint=hint), busy=True)


def _pids(pids: Sequence[int]) -> str:
    return f" (pid {', '.join(map(str, pids))})" if pids else ""


def in_use(path: str, why: str, pids: Sequence[int]) -> Refused:
    """The refusal of damaged or incomplete files that other processes have open, and close in time."""
    seen = f"pid {', '.join(map(str, pids))}" if pids else "none that this process can see"
    hint = "a process leaves damaged files with its next call; if one never makes any, end it"
    text = f"{path}: {why}, and other processes have it open: {seen}"
    return Refused(BackendUnavailable(text, hint=hint), busy=True)


def not_its_lock_file(path: str, recorded: str, pids: Sequence[int], *, used: bool) -> Refused:
    """The refusal of a database beside a lock file that it does not record.

    Args:
        path: The database.
        recorded: The path of its own lock file; empty if that is illegible.
        pids: The processes that can be seen to use the database.
        used: Whether its own lock file is at that path, and in use.
    """
    hint = f"use it by the name {recorded.removesuffix('-lock')}, or end the processes that do"
    if not used:
        hint = (
            "if it was moved or restored, or its lock file was removed: "
            "end the programs that use it by another name, "
            f"then run: lockkit store adopt-folder --url sqlite:{path}"
        )
    was = (recorded or "recorded illegibly") + ("" if used or not recorded else " and is gone")
    text = f"cannot use {path}: the lock file beside it is not its own, which was {was}{_pids(pids)}"
    return Refused(BackendUnavailable(text, hint=hint), retry=False)


def adopted(path: str) -> Refused:
    """The refusal of a database that was adopted under another name under this process."""
    text = (
        f"cannot use {path} any more: "
        "while this process was being forked, the database was adopted under another name"
    )
    hint = (
        "end the programs that use it by that name, and this one, then run: "
        f"lockkit store adopt-folder --url sqlite:{path}"
    )
    return Refused(BackendUnavailable(text, hint=hint), retry=False)


def log_of_other_name(path: str, name: str) -> Refused:
    """The refusal of a database with a log beside its other name: the log has the last claims."""
    text = f"cannot use {path}: a process that used it as {name} was killed, and left {name}-wal"
    hint = f"use it once by that name: lockkit status --url sqlite:{name}"
    return Refused(BackendUnavailable(text, hint=hint), retry=False)


def no_lock_file(path: str, pids: Sequence[int]) -> Refused:
    """The refusal of a database that others have open without its lock file, or by another one."""
    these = (
        f"end {'that process' if len(pids) == 1 else 'those processes'}"
        if pids
        else f"find and end them (fuser {path})"
    )
    hint = (
        f"{these}: an older version of lockkit or another program, a user of another name of the file, "
        "or a process that has made no call since the lock file was removed"
    )
    text = f"cannot use {path}: other processes have it open without the lock file beside it{_pids(pids)}"
    return Refused(BackendUnavailable(text, hint=hint), retry=False)


def torn(path: str) -> Refused:
    """The refusal for a process that was forked while its parent had the file open."""
    text = (
        f"{path} cannot be used in this process: it was forked while its parent had the file open "
        "(by other means than os.fork, or a signal handler raised during the fork)"
    )
    hint = "fork with os.fork or multiprocessing, again if a signal handler raised; or start a new program"
    return Refused(BackendUnavailable(text, hint=hint), retry=False)


def link(path: str) -> str | None:
    """The first of a database's files that is a symbolic link, or None. Anybody may have put it there."""
    return next((path + suffix for suffix in ("", "-wal", "-shm") if os.path.islink(path + suffix)), None)  # noqa: PTH114


def linked(path: str) -> Refused:
    """The refusal for a file of the store that is a symbolic link."""
    text = f"{path} is a symbolic link, which could lead to a file of another program"
    return Refused(
        PermissionDenied(text, hint=f"find out who put it there (ls -l {path}), and remove it"), retry=False
    )


def no_log(path: str) -> Refused:
    """The refusal for a file system on which SQLite has no write-ahead log (it needs shared memory)."""
    text = f"cannot use {path}: its file system does not support SQLite's write-ahead log"
    return Refused(BackendUnavailable(text, hint="put it on a local file system"), retry=False)


def swapped(path: str, error: sqlite3.Error | None = None) -> Unknown:
    """The error of a request during which the files were removed or replaced; the next finds new ones."""
    why = f" ({_name(error) or error})" if error else ""
    text = f"the files of {path} were removed or replaced under this process{why}"
    hint = "keep cleaners and backups away from them; to free a lock, use lockkit evict"
    return Unknown(BackendUnavailable(text, hint=hint))


def retired(path: str) -> Refused:
    """The refusal by a connection that was closed because of damage; the next call opens new files."""
    return Refused(swapped(path).error)


def mapped(error: sqlite3.Error, path: str) -> Refused | Unknown:
    """Translate an error of SQLite."""
    name = _name(error)
    if is_busy(error):
        return busy(path)
    if name == "SQLITE_INTERRUPT":
        hint = (
            f"the machine is very busy, or somebody has put a trigger into the file: sqlite3 {path} .schema"
        )
        return Refused(BackendUnavailable(f"{path}: a statement did not end in time", hint=hint), busy=True)
    if name.startswith("SQLITE_CANTOPEN") and (found := link(path)) is not None:
        return linked(found)
    for listed, (kind, what, hint) in _TABLE.items():
        if name == listed or name.startswith(listed + "_"):
            full = f", {left(path)}" if listed == "SQLITE_FULL" else ""
            return Refused(kind(f"cannot use {path}: {what}{full} ({error})", hint=hint), retry=False)
    free = free_space(path) if name.startswith("SQLITE_IOERR") else None
    if free is not None and free < FULL:
        # If there is no space for the log's index in shared memory, SQLite reports an I/O error.
        told = f"{path} failed: the disk is full, {left(path)} ({name}: {error})"
        return Unknown(BackendUnavailable(told, hint="free some space"))
    hint = f"check the disk and the kernel's messages: df -h {Path(path).parent}; dmesg"
    return Unknown(BackendUnavailable(f"{path} failed: {name or type(error).__name__}: {error}", hint=hint))


def free_space(path: str) -> int | None:
    """Bytes that this user may still write beside a file; None if the system does not say."""
    try:
        space = os.statvfs(Path(path).parent)
    except OSError as error:
        raise_if_foreign(error)
        return None
    return space.f_bavail * space.f_frsize


def shown(size: int) -> str:
    """Bytes as people read them."""
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"


def left(path: str) -> str:
    """The free space beside a file, in words."""
    free = free_space(path)
    return f"{'free space unknown' if free is None else shown(free) + ' free'} in {Path(path).parent}"


def _name(error: sqlite3.Error) -> str:
    return str(getattr(error, "sqlite_errorname", None) or "")


def two_boots(path: str, name: str) -> Refused:
    """The error for a living process with another boot id, whose claims would be taken for dead."""
    return Refused(
        BackendUnavailable(
            f"a process with another boot id has a claim for {name!r} in {path}, and is alive: "
            "one of the two is in a container that has a boot id of its own",
            hint="use Redis, etcd or ZooKeeper between them, "
            "or give both one /proc/sys/kernel/random/boot_id; see: lockkit docs containers",
        ),
        retry=False,
    )
