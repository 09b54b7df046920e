"""The checks of ``doctor``: the file, its folder, its log, its layout, room to write, and the clock."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from lockkit.facts import Finding
from lockkit.places import filesystem, network_filesystem
from lockkit.store.spi import Refused, Unknown
from lockkit_sqlite.failures import FULL, free_space, shown
from lockkit_sqlite.store import SQLiteStore

__all__ = ["check"]

_LITTLE = 32 << 20
"""Bytes of free space below which a warning is due: the log alone may grow to 8 MB."""
_SKEW = 60.0
_TOLD = 86400.0
"""Seconds for which a check tells that a store was made anew."""


def check(store: SQLiteStore, end: float) -> Sequence[Finding]:
    """See :meth:`lockkit.store.spi.Backend.check`."""
    try:
        store.follow(closely=True)
    except (Refused, Unknown) as trouble:
        hint = getattr(trouble.error, "hint", "") or ""
        return [Finding("file", "error", f"its files are gone: {trouble}", hint), *_room(store)]
    findings = [*_file(store), *_anew(store), *_room(store)]
    try:
        findings += _inside(store, end)
    except (Refused, Unknown) as trouble:
        findings.append(Finding("database", "error", str(trouble), getattr(trouble.error, "hint", "") or ""))
    return findings


def _file(store: SQLiteStore) -> Iterator[Finding]:
    place = store.place
    kind = "a host store, shared by its folder's group" if place.shared else "a private store"
    try:
        mode = stat.S_IMODE(os.stat(place.path).st_mode)  # noqa: PTH116
    except OSError as error:
        hint = "somebody removed it this moment: ask again"
        yield Finding("file", "error", f"{place.path} is gone: {error.strerror}", hint)
        return
    if mode & 0o777 & ~place.mode:
        yield Finding(
            "file", "warning", f"{place.path} has mode {mode:04o}", f"chmod {place.mode:04o} {place.path}"
        )
    else:
        yield Finding("file", "ok", f"{place.path}, {kind}")
    network = network_filesystem(place.path)
    if network:
        yield Finding(
            "file system", "error", f"it is on {network}, a network file system", "use a local folder"
        )
    else:
        yield Finding("file system", "ok", f"it is on {filesystem(place.path) or 'an unknown file system'}")


def _anew(store: SQLiteStore) -> Iterator[Finding]:
    at, why = store.anew()
    if 0 <= store.clock.wall() - at < _TOLD:
        hint = "find out who did it: a cleaner of old files, a restored backup; to free a lock, use lockkit evict"
        when = time.strftime("%F %T", time.localtime(at))
        yield Finding(
            "files", "warning", f"made anew at {when}, because {why}; what was held then is lost", hint
        )
    else:
        yield Finding("files", "ok", "database, log and index are those that were opened")


def _room(store: SQLiteStore) -> Iterator[Finding]:
    folder = Path(store.place.path).parent
    free = free_space(store.place.path)
    if free is None:
        yield Finding("free space", "warning", f"nobody can say how much is free in {folder}")
    elif free < FULL:
        yield Finding(
            "free space", "error", f"the disk is full: {shown(free)} free in {folder}", "free some space"
        )
    elif free < _LITTLE:
        yield Finding("free space", "warning", f"{shown(free)} free in {folder}", "free some space")
    else:
        yield Finding("free space", "ok", f"{shown(free)} free in {folder}")
    if os.access(store.place.pulses, os.W_OK | os.X_OK):
        yield Finding("pulses", "ok", f"FIFOs can be created in {store.place.pulses}")
    else:
        hint = "check its owner and mode; waiters and the death of holders are noticed through it"
        yield Finding("pulses", "error", f"cannot create FIFOs in {store.place.pulses}", hint)


def _inside(store: SQLiteStore, end: float) -> Iterator[Finding]:
    link = store.calls
    mode = link.read("PRAGMA journal_mode", (), end)[0][0]
    if mode == "wal":
        yield Finding("log", "ok", "write-ahead log")
    else:
        yield Finding("log", "error", f"journal_mode is {mode}", "stop its users and move the file away")
    layout = link.read("SELECT value FROM meta WHERE key = 'layout'", (), end)
    yield Finding("layout", "ok", f"layout {layout[0][0]}")
    newest = link.read("SELECT max(fence, (SELECT coalesce(max(fence), 0) FROM claims)) FROM high", (), end)[
        0
    ][0]
    ahead = newest / 1e6 - store.clock.wall()
    if ahead > _SKEW:
        hint = "fences still rise, by one each; set the clock right (timedatectl)"
        yield Finding("clock", "warning", f"the wall clock is {ahead:.0f} s behind the last fence", hint)
    else:
        yield Finding("clock", "ok", "the wall clock is not behind the last fence")
    yield Finding("scope", "ok", "it keeps the processes of this host apart, and of no other")
