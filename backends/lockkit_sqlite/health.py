"""The checks of ``doctor``: the file, its folder, its log, its layout, free space, and the clock."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from lockkit.config.places import filesystem, network_filesystem
from lockkit.facts import Finding
from lockkit.store.spi import Refused, Unknown
from lockkit_sqlite import statements as sql
from lockkit_sqlite.failures import FULL, free_space, shown
from lockkit_sqlite.place import group_name
from lockkit_sqlite.store import SQLiteStore

__all__ = ["check"]

_LITTLE = 32 << 20
"""Bytes of free space below which the check warns: the log alone may grow to 8 MB."""
_SKEW = 60.0
_TOLD = 86400.0
"""Seconds for which the check mentions that a store was made anew."""


def check(store: SQLiteStore, end: float) -> Sequence[Finding]:
    """See :meth:`lockkit.store.spi.Backend.check`."""
    try:
        store.follow(closely=True)
    except (Refused, Unknown) as trouble:
        return [
            Finding("file", "error", f"its files are gone: {trouble}", trouble.error.hint or ""),
            *_space(store),
        ]
    findings = [*_file(store), _anew(store), *_space(store)]
    try:
        findings += _inside(store, end)
    except (Refused, Unknown) as trouble:
        findings.append(Finding("database", "error", str(trouble), trouble.error.hint or ""))
    return findings


def _file(store: SQLiteStore) -> Iterator[Finding]:
    place = store.place
    kind = f"a host store, shared by the group {_group(store)}" if place.shared else "a private store"
    try:
        mode = stat.S_IMODE(os.stat(place.path).st_mode)  # noqa: PTH116
    except OSError as error:
        yield Finding(
            "file", "error", f"{place.path} is gone: {error.strerror}", "somebody just removed it: try again"
        )
        return
    if mode & 0o777 & ~place.mode:
        hint = f"chmod {place.mode:04o} {place.path}"
        yield Finding("file", "warning", f"{place.path} has mode {mode:04o}", hint)
    elif place.shared and place.mode & ~mode:
        told = (
            f"{place.path} has mode {mode:04o}: it was made before a group shared its folder, "
            "and only its owner can use it"
        )
        yield Finding("file", "error", told, f"name another file in {Path(place.path).parent}")
    else:
        yield Finding("file", "ok", f"{place.path}, {kind}")
    network = network_filesystem(place.path)
    if network:
        yield Finding(
            "file system",
            "error",
            f"the database is on {network}, a network file system",
            "use a local folder",
        )
    else:
        yield Finding(
            "file system", "ok", f"the database is on {filesystem(place.path) or 'an unknown file system'}"
        )


def _anew(store: SQLiteStore) -> Finding:
    at, why = store.anew()
    if not 0 <= store.clock.wall() - at < _TOLD:
        return Finding("files", "ok", "database, log and index are those that were opened")
    hint = "find out who did it: a cleaner of old files, a restored backup; to free a lock, use lockkit evict"
    when = time.strftime("%F %T", time.localtime(at))
    return Finding(
        "files", "warning", f"made anew at {when}, because {why}; what was held then is lost", hint
    )


def _space(store: SQLiteStore) -> Iterator[Finding]:
    folder = Path(store.place.path).parent
    free = free_space(store.place.path)
    if free is None:
        yield Finding("free space", "warning", f"the system does not tell how much is free in {folder}")
    elif free < FULL:
        yield Finding(
            "free space", "error", f"the disk is full: {shown(free)} free in {folder}", "free some space"
        )
    elif free < _LITTLE:
        yield Finding("free space", "warning", f"{shown(free)} free in {folder}", "free some space")
    else:
        yield Finding("free space", "ok", f"{shown(free)} free in {folder}")
    pulses = store.place.pulses
    if os.access(pulses, os.W_OK | os.X_OK):
        yield Finding("pulses", "ok", f"FIFOs can be created in {pulses}")
    else:
        hint = "check its owner and mode; FIFOs wake waiters and show that a holder died"
        yield Finding("pulses", "error", f"cannot create FIFOs in {pulses}", hint)


def _inside(store: SQLiteStore, end: float) -> Iterator[Finding]:
    read = store.calls.read
    mode = read("PRAGMA journal_mode", (), end)[0][0]
    if mode == "wal":
        yield Finding("log", "ok", "write-ahead log")
    else:
        yield Finding("log", "error", f"journal_mode is {mode}", "stop its users and move the file away")
    ((layout,),) = read("SELECT value FROM meta WHERE key = 'layout'", (), end)
    made = json.loads(layout)  # checked when the file was opened
    by = (
        f", made by lockkit {made['lockkit']} on {made.get('host') or 'an unknown host'}"
        if made.get("lockkit")
        else ""
    )
    yield Finding("layout", "ok", f"the database has layout {made.get('v')}{by}")
    ((newest,),) = read(sql.NEWEST_FENCE, (), end)
    behind = newest / 1e6 - store.clock.wall()
    if behind > _SKEW:
        hint = "fences still rise, by one each; set the clock right (timedatectl)"
        yield Finding("clock", "warning", f"the wall clock is {behind:.0f} s behind the last fence", hint)
    else:
        yield Finding("clock", "ok", "the wall clock is not behind the last fence")
    if store.place.shared:
        told = f"locks work between the processes of all users of this host in the group {_group(store)}"
        yield Finding("scope", "ok", told)
    else:
        told = (
            "locks work between the processes of this user on this host; other users have stores of their own"
        )
        yield Finding("scope", "ok", told, "one lock for all users: lockkit docs all-users")


def _group(store: SQLiteStore) -> str:
    return group_name(os.stat(Path(store.place.path).parent).st_gid)  # noqa: PTH116 - as everywhere here
