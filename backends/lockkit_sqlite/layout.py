"""The layout of the file: its tables, its version, and who may read it.

``entries`` is clustered by namespace, name and fence, so a queue is one range of one tree, and an uncontended
acquire writes one page. Its entry of namespace '' (which no lock can have) keeps the highest fence of all
claims that are gone, for the whole store: a trigger writes it in the statement that removes the claim. So
fences outlive their claims, and nothing is left for each name. The views ``claims`` and ``high`` show the
two. (Measured, 2 KiB pages, acquire + release against bare insert + delete at 26 us: this layout 29 us; the
highest fence in its own table 32 us, because release writes two pages; the trigger on insert the same, but
writers of different names collide on the fence; fence as rowid with an index 35 us.)

Times are integer CLOCK_BOOTTIME microseconds of the row's boot; adding ``epoch`` gives those since 1970.
"""

# ruff: noqa: S608 - statements are put together from constants of this file
from __future__ import annotations

import json

from lockkit.facts import Owner
from lockkit.store.layouts import too_new
from lockkit.store.untrusted import object_in

__all__ = [
    "DDL",
    "DERIVED",
    "FAR",
    "HELD",
    "HIGH",
    "KEPT",
    "LINGERING",
    "NO_FENCE",
    "PAGE_SIZE",
    "READER",
    "WAITING",
    "check_layout",
    "counts",
    "layout_row",
    "micros",
]

VERSION = 2
"""The layout that this code writes. Version 1 knew no lock file, and judged the files of a store by looks."""
READER = 2
"""The newest ``min_reader`` that this code may touch."""
PAGE_SIZE = 2048
WAITING, HELD, LINGERING = 0, 1, 2
FAR = 1 << 60
"""A deadline that never comes."""

DDL = (
    "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    """CREATE TABLE IF NOT EXISTS entries (
        namespace TEXT NOT NULL,
        name TEXT NOT NULL,
        fence INTEGER NOT NULL,           -- place in the order of arrival
        token TEXT NOT NULL,
        state INTEGER NOT NULL,           -- 0 WAITING, 1 HELD, 2 LINGERING
        evicted INTEGER NOT NULL DEFAULT 0,
        weight INTEGER NOT NULL,
        capacity INTEGER NOT NULL,
        process_bound INTEGER NOT NULL,
        deadline INTEGER NOT NULL,        -- counts for nothing from here on
        silence INTEGER NOT NULL,         -- the same by ttl alone: rules if the process cannot be asked
        ttl INTEGER NOT NULL,
        since INTEGER NOT NULL,
        renewed INTEGER NOT NULL,
        hold_end INTEGER NOT NULL,        -- since + max_hold
        min_hold INTEGER NOT NULL,
        lock_delay INTEGER NOT NULL,
        boot TEXT NOT NULL,
        epoch INTEGER NOT NULL,
        fifo TEXT NOT NULL,               -- the client's pulse and bell; '' for a holder without
        info TEXT NOT NULL,               -- JSON: v, kind, owner
        note TEXT,                        -- JSON
        asked INTEGER NOT NULL DEFAULT 0, -- the note was changed by others
        min_reader INTEGER NOT NULL DEFAULT 1,
        PRIMARY KEY (namespace, name, fence)
    ) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS asked ON entries (namespace, name, fence) WHERE asked = 1",
    """CREATE TABLE IF NOT EXISTS records (
        namespace TEXT NOT NULL,
        name TEXT NOT NULL,
        version INTEGER NOT NULL,
        value TEXT NOT NULL,              -- JSON
        written REAL NOT NULL,            -- seconds since 1970
        v INTEGER NOT NULL DEFAULT 1,
        min_reader INTEGER NOT NULL DEFAULT 1,
        PRIMARY KEY (namespace, name)
    ) WITHOUT ROWID""",
)
"""Each statement may be repeated, so two processes may create one file. The layout row comes last."""

NO_FENCE = 1 << 61
"""No fence is as high: others may write any number, and one must be possible after each that counts."""


def counts(column: str) -> str:
    """The condition that the value in a column is a fence after which another one can come."""
    return f"(typeof({column}) = 'integer' AND {column} BETWEEN 0 AND {NO_FENCE - 2})"


KEPT = """entries (namespace, name, fence, token, state, weight, capacity, process_bound, deadline, silence, \
ttl, since,
    renewed, hold_end, min_hold, lock_delay, boot, epoch, fifo, info)
    VALUES ('', '', 0, '', 0, 0, 0, 0, 0, 0, 0, {fence}, 0, 0, 0, 0, '', 0, '', '{{}}') ON CONFLICT DO"""
"""The row that keeps the highest fence of the claims that are gone."""
HIGH = f"SELECT coalesce(max(since), 0) AS fence FROM entries WHERE namespace = '' AND {counts('since')}"
DERIVED = (
    # Also the highest of all, which does not count: then the wall clock rules, and no fence repeats.
    f"""CREATE TRIGGER keep_fence AFTER DELETE ON entries
        WHEN old.namespace <> '' AND typeof(old.fence) = 'integer' AND old.fence BETWEEN 0 AND {NO_FENCE - 1}
        BEGIN INSERT INTO {KEPT.format(fence="old.fence")} UPDATE SET since = old.fence
        WHERE NOT ({counts("since")} AND since >= old.fence); END""",
    f"CREATE VIEW high AS {HIGH}",
    "CREATE VIEW claims AS SELECT * FROM entries WHERE namespace <> ''",
)
"""The trigger and the views, derived from the tables. A process alone with a file corrects them."""


def micros(seconds: float) -> int:
    """Seconds in the unit of the file: whole microseconds."""
    return round(seconds * 1e6)


def layout_row(owner: Owner) -> str:
    """The value of the ``layout`` row of ``meta`` as this code writes it."""
    return json.dumps(
        {"v": VERSION, "min_reader": READER, "host": owner.host, "lockkit": owner.version},
        separators=(",", ":"),
    )


def check_layout(stored: str, path: str) -> None:
    """Refuse a file whose layout this code cannot read.

    Raises:
        Refused: With IncompatibleLayout.
    """
    layout = object_in(stored) or {}
    minimum = layout.get("min_reader")
    if not isinstance(minimum, int) or minimum > READER:
        owner = Owner(version=str(layout.get("lockkit") or ""), host=str(layout.get("host") or ""))
        raise too_new(
            path, minimum, READER, owner, "upgrade lockkit here, or point the newer one at another file"
        )
