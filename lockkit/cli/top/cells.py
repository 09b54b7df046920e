"""The rows of the live tables: fitting columns and their texts, as :mod:`lockkit.cli.lock_table` has them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from lockkit.cli.lock_table import COLOURS, rows_of, short_names
from lockkit.lib.namedtuples import NamedTuple
from lockkit.protocol.denials import because
from lockkit.values import durations
from lockkit.views.looking import is_pattern, longest_wait

if TYPE_CHECKING:
    from lockkit.facts import ClaimInfo, LockInfo

__all__ = [
    "Column",
    "Entry",
    "bar",
    "claim_columns",
    "claim_entries",
    "lock_columns",
    "lock_entries",
    "matching",
]

_WIDE, _MIDDLE = 160, 100
"""Columns of the terminal."""
_BAR = 8
_LEAST = 20
"""Columns that the holders get at least."""


class Column(NamedTuple):
    """A column of a live table."""

    key: str
    label: str
    width: int


class Entry(NamedTuple):
    """A row of a live table: its key, its lock and claim, its texts, its style, and its holder in full."""

    key: str
    info: LockInfo
    claim: ClaimInfo | None
    cells: Sequence[str]
    style: str
    who: str = ""


def bar(claim: ClaimInfo | None, now: float) -> str:
    """The remaining share of the ttl, as a bar; in words if there is no deadline or it is unknown."""
    if claim is None:
        return ""
    if claim.deadline is None:
        return "process" if claim.process_bound else "untold"
    left = max(min((claim.deadline - now) / claim.ttl, 1.0), 0.0) if claim.ttl else 0.0
    full = math.ceil(left * _BAR)
    return "█" * full + "░" * (_BAR - full)


def lock_columns(width: int) -> list[Column]:
    """The columns of the table of locks that fit a terminal. The column of the holders gets the rest."""
    fitting = [
        Column("name", "name", 36 if width >= _WIDE else 28 if width >= _MIDDLE else 20),
        Column("state", "state", 20 if width >= _WIDE else 9),
        Column("waiters", "wait", 4),
        Column("longest", "longest", 8),
        *([Column("since", "held for", 9)] if width >= _MIDDLE else []),
        Column("ttl", "ttl left", _BAR),
        *(
            [Column("deadline", "lapses", 16), Column("claim", "claim", 12), Column("fence", "fence", 8)]
            if width >= _WIDE
            else []
        ),
    ]
    return _filled(
        fitting,
        Column("holder", "for, progress, holder" if width < _WIDE else "holder, reason, progress", 0),
        width,
    )


def claim_columns(width: int) -> list[Column]:
    """The columns of the queue of one lock."""
    fitting = [
        Column("place", "#", 5),
        Column("state", "state", 9),
        Column("claim", "claim", 12),
        Column("since", "for", 9),
        Column("ttl", "ttl left", _BAR),
    ]
    return _filled(fitting, Column("holder", "owner, and why the claim waits", 0), width)


def _filled(columns: Sequence[Column], last: Column, width: int) -> list[Column]:
    used = sum(column.width + 1 for column in columns)
    return [*columns, last._replace(width=max(width - used - 3, _LEAST))]


def lock_entries(locks: Sequence[LockInfo], columns: Sequence[Column], now: float) -> list[Entry]:
    """The rows of locks, one for each holder."""
    names = short_names([info.name for info in locks])
    short = all(column.key != "claim" for column in columns)
    made = []
    for info in locks:
        first = longest_wait(info)
        for number, row in enumerate(rows_of(info, now, names, short=short, why_first=short)):
            waits = number == 0 and first < math.inf
            cells = {
                **row.cells,
                "longest": durations.show(max(now - first, 0.0)) if waits else "",
                "ttl": bar(row.holder, now),
            }
            identity = row.holder.claim_id if row.holder else ""
            style = COLOURS.get(row.state, "")
            made.append(
                Entry(
                    f"{identity} {info.name}",
                    info,
                    row.holder,
                    [cells[column.key] for column in columns],
                    style,
                    row.cells["holder"],
                )
            )
    return made


def claim_entries(info: LockInfo, columns: Sequence[Column], now: float) -> list[Entry]:
    """The rows of one queue: the holders, then everybody who waits, in order."""
    holders = {row.holder.claim_id: row for row in rows_of(info, now, short=True) if row.holder}
    made, place = [], 0
    for claim in (*info.holders, *info.waiters):
        row = holders.get(claim.claim_id)
        place += row is None
        cells = {
            "place": "" if row else str(place),
            "state": row.cells["state"] if row else claim.state.lower(),
            "claim": claim.claim_id,
            "since": durations.show(max(now - claim.since, 0.0)),
            "ttl": bar(claim, now),
            "holder": row.cells["holder"] if row else f"{claim.owner}{because(claim)}",
        }
        style = COLOURS.get("held" if claim.state == "HELD" else "waiting", "") if row else ""
        made.append(Entry(claim.claim_id, info, claim, [cells[column.key] for column in columns], style))
    return made


def matching(locks: Sequence[LockInfo], words: str) -> list[LockInfo]:
    """The locks whose name or owner has these words, in any case; a pattern is matched with the name."""
    words = words.strip().casefold()
    if not words:
        return list(locks)
    if is_pattern(words):
        return [info for info in locks if fnmatchcase(info.name.casefold(), words)]
    return [
        info
        for info in locks
        if words in info.name.casefold() or any(words in str(claim.owner).casefold() for claim in info.claims)
    ]
