"""Opening the files of a store, and making them anew where somebody removed or replaced some of them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

from lockkit.clock import Clock
from lockkit.errors import BackendUnavailable
from lockkit.facts import Owner
from lockkit.store.spi import Refused, Unknown
from lockkit_sqlite.failures import no_log
from lockkit_sqlite.files import Files, alone, clear, look, trouble
from lockkit_sqlite.layout import DDL, PAGE_SIZE, check_layout, layout_row
from lockkit_sqlite.link import Link
from lockkit_sqlite.place import Place, create, unusable

__all__ = ["Carried", "Links", "mark_anew", "open_links"]

_PATIENCE, _MOVING = 2.0, 0.4
"""Seconds to wait for another process that opens the files: when a store is opened, and in the middle of a call."""
_ATTEMPTS = 8
_LOOKS = (0.005, 0.02, 0.0)
"""Seconds between looks that must all find the same damage. After a fork a process has its lock a moment before its log."""
_CARRYING = 0.2


class Carried(NamedTuple):
    """The highest fence and the records of a store, which outlive its claims when it is made anew."""

    fence: int = 0
    records: tuple[Any, ...] = ()


class Links(NamedTuple):
    """The connections of a store.

    Attributes:
        calls: For callers.
        beats: For the heartbeat.
        why: The damage for which the files had to be made anew; empty if they were not.
    """

    calls: Link
    beats: Link
    why: str = ""


def open_links(
    given: Path, place: Place, files: Files, clock: Clock, owner: Owner, old: Link | None = None
) -> Links:
    """Open the files under their names, or make them anew.

    Args:
        given: The database as its users name it.
        place: The place of the database.
        files: The files that this process has open there.
        clock: The clock for deadlines.
        owner: The owner to note in a new layout.
        old: A connection to the files as they were, from which readable fences and records are carried over.

    Raises:
        Refused: The files cannot be opened, or somebody goes on removing them.
        Unknown: SQLite's error does not tell whether anything was done.
    """
    end = time.monotonic() + (_PATIENCE if old is None else _MOVING)
    why, carried = "", Carried()
    for _ in range(_ATTEMPTS):
        try:
            with alone(place, end):
                damage = _damage(given, place, files)
                if damage:
                    why = why or damage
                    carried = _carry(old, carried)
                    clear(place.path)
                create(place)
                calls = _link(place, clock)
                try:
                    if not _lay(calls, place, carried, why, clock, owner, end):
                        carried = _carry(calls, carried)
                        why = why or f"{Path(place.path).name} was a copy of another database"
                        calls.close()
                        clear(place.path)
                        continue
                    beats = _link(place, clock)
                    opened = look(str(given), place.path)
                    if opened.whole and opened.database == look(place.path, place.path).database:
                        files.took(opened, anew=bool(why))
                        return Links(calls, beats, why)
                    beats.close()
                except (Refused, Unknown):
                    calls.close()
                    if Path(place.path).exists():
                        raise
                calls.close()
        except OSError as error:
            raise unusable(given, error) from error
    raise Refused(
        BackendUnavailable(
            f"the files of {place.path} are removed again and again",
            hint="keep cleaners and backups away from them",
        )
    )


def _link(place: Place, clock: Clock) -> Link:
    return Link(place.path, clock, synchronous=place.synchronous)


def _damage(given: Path, place: Place, files: Files) -> str:
    """The damage to the files, if several looks agree on damage; else empty."""
    found = ""
    for pause in _LOOKS:
        found = trouble(look(str(given), place.path), files.known(), place.path)
        if not found:
            break
        time.sleep(pause)
    return found


def _carry(link: Link | None, before: Carried) -> Carried:
    """The readable part of the old store. Best effort: fences rise by the wall clock, too."""
    if link is None:
        return before
    end = time.monotonic() + _CARRYING
    try:
        ((fence,),) = link.read(
            "SELECT max(fence, (SELECT coalesce(max(fence), 0) FROM claims)) FROM high", (), end
        )
        records = link.read(
            "SELECT namespace, name, version, value, written, v, min_reader FROM records WHERE json_valid(value)",
            (),
            end,
        )
    except (Refused, Unknown, ValueError):
        return before
    return Carried(max(fence, before.fence), tuple(records) or before.records)


def _lay(
    link: Link, place: Place, carried: Carried, why: str, clock: Clock, owner: Owner, end: float
) -> bool:
    """Check the layout, or write it into a new file; False if the database is a copy, because another inode is noted in it."""
    inode = str(os.stat(place.path).st_ino)  # noqa: PTH116 - as everywhere here
    found = link.read("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'meta'", (), end)
    meta = _meta(link, end) if found else {}
    if "layout" not in meta:
        link.read(f"PRAGMA page_size={PAGE_SIZE}", (), end)
        if link.read("PRAGMA journal_mode=WAL", (), end) != [("wal",)]:
            raise no_log(place.path)
        for statement in DDL:
            link.write(statement, lambda _: (), end)
        link.write(
            "UPDATE entries SET since = max(since, ?1) WHERE namespace = ''", lambda _: (carried.fence,), end
        )
        for record in carried.records:
            link.write(
                "INSERT OR IGNORE INTO records VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                lambda _, each=record: each,  # type: ignore[misc]
                end,
            )
        if why:
            mark_anew(link, why, clock, owner, end)
        row = layout_row(owner)
        link.write("INSERT OR IGNORE INTO meta VALUES ('file', ?1)", lambda _: (inode,), end)
        link.write("INSERT OR IGNORE INTO meta VALUES ('layout', ?1)", lambda _: (row,), end)
        meta = _meta(link, end)
    check_layout(meta["layout"], place.path)
    if "file" not in meta:  # laid by a version that did not state it
        link.write("INSERT OR IGNORE INTO meta VALUES ('file', ?1)", lambda _: (inode,), end)
    return meta.get("file", inode) == inode


def _meta(link: Link, end: float) -> dict[str, str]:
    return dict(link.read("SELECT key, value FROM meta", (), end))


def mark_anew(link: Link, why: str, clock: Clock, owner: Owner, end: float) -> None:
    """Note in the store when and why it was made anew, for ``doctor`` and for newcomers; an earlier note stays."""
    row = json.dumps({"at": clock.wall(), "why": why, "pid": owner.pid}, separators=(",", ":"))
    link.write("INSERT OR IGNORE INTO meta VALUES ('anew', ?1)", lambda _: (row,), end)
