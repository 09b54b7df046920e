"""The table of ``lockkit status``: locks, members of pools, and waiting requests, to fit the terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lockkit.hooks import of_gpus
from lockkit.lib.namedtuples import NamedTuple
from lockkit.lib.noted import RESERVED
from lockkit.lib.printable import printable
from lockkit.notes.members import in_pool
from lockkit.values import durations
from lockkit.views.texts import lock_state

if TYPE_CHECKING:
    from rich.table import Table

    from lockkit.facts import ClaimInfo, LockInfo

__all__ = ["COLOURS", "Row", "rows_of", "short_names", "table_of", "use_of_gpu"]

COLOURS: Mapping[str, str] = {
    "held": "green",
    "lingering": "yellow",
    "waiting": "yellow",
    "choosing": "yellow",
    "free": "dim",
}
"""Styles of rich for the states of a lock."""
_FLAGS = {"stopped": "stopped", "gone": "holder gone"}
"""Words about a holder whose process is in this state."""
_WIDE, _NARROW = 120, 60
"""Columns."""
_HOLDER, _NAME = len("claim 0123456789ab"), 24
"""Columns that holders keep before a less important column is left out, and that a long name gets."""
_BETWEEN = 3
"""Columns between two columns of a table on a terminal."""
_DROPPED = ("fence", "deadline", "claim", "since")
"""The columns that narrow terminals lack, the least important first; the last two become second lines."""
_SHORT = len("GPU-54a033e8")


def table_of(locks: Sequence[LockInfo], width: int, *, full: bool = False) -> Table:
    """A table of the columns that fit. On a narrow terminal, since and claim are second lines.

    If too few columns fit, each lock is shown as lines.

    ``full``: names and columns are complete, for programs that read the table. Otherwise a member of a pool
    is shown as its pool and its name, of which a UUID is cut to a unique beginning.
    """
    from lockkit.cli.tables import add, table

    wide = width >= _WIDE
    names = {} if full else short_names([info.name for info in locks])
    now = time.time()
    rows = [(row.state, row.cells) for info in locks for row in rows_of(info, now, names, short=not wide)]
    columns: tuple[str, ...] = ("name", "state", "claim", "holder", "since", "waiters")
    if wide:
        columns = (*columns[:-1], "deadline", "fence", "waiters")
    widths = _widths([cells for _, cells in rows], columns, width)
    if not full:
        columns = () if width < _NARROW else _fitting(columns, widths, width)
    made = table(*(columns or ("locks",)))
    if columns and not full:
        made.columns[0].width = widths["name"]
    for state, cells in rows:
        row = [_cell(cells, column, columns) for column in columns] or [_stacked(cells)]
        add(made, *row, style=COLOURS.get(state))
    return made


class Row(NamedTuple):
    """A row about one holder of a lock, or about a lock that nobody holds.

    Attributes:
        state: The state of the lock, one of :data:`COLOURS`.
        cells: The text of each column, by the name of the column.
        holder: The holder; None if there is none.
    """

    state: str
    cells: Mapping[str, str]
    holder: ClaimInfo | None


def rows_of(
    info: LockInfo,
    now: float,
    names: Mapping[str, str] | None = None,
    *,
    short: bool = False,
    why_first: bool = False,
) -> list[Row]:
    """The rows of a lock, one for each holder; the first one has the name and the number of waiters.

    ``names`` come from :func:`short_names`; ``short``: the state in one word; ``why_first``: a holder's
    reason and progress precede its owner, for a table that cuts the rest.
    """
    choosing = _choosing(info)
    state = "choosing" if choosing else lock_state(info)
    name = info.name if names is None else names.get(info.name, info.name)
    return [
        Row(
            state,
            {
                "name": name if number == 0 else "",
                "state": _state(state, holder, short=short, choosing=bool(choosing)),
                "claim": holder.claim_id if holder else "",
                "holder": "; ".join(filter(None, (choosing, _who(holder, why_first=why_first))))
                if holder
                else "",
                "since": durations.show(max(now - holder.since, 0)) if holder else "",
                "deadline": _deadline(holder, now) if holder else "",
                "fence": str(holder.fence) if holder else "",
                "waiters": str(len(info.waiters)) if number == 0 else "",
            },
            holder,
        )
        for number, holder in enumerate(info.holders or (None,))
    ]


def _choosing(info: LockInfo) -> str:
    """The words for the request that holds the gate of a pool; empty for other locks."""
    found = in_pool(info.name)
    asked = info.holders[0].note.get("pool") if info.holders else None
    if found is None or found[1] is not None or not isinstance(asked, Mapping):
        return ""
    count = asked.get("count")
    return f"first of those who wait, for {_how_many(found[0], count if isinstance(count, int) else 1)}"


def _how_many(pool: str, count: int) -> str:
    if of_gpus("has_cards")(pool):
        words: str = of_gpus("how_many")(count)
        return words
    return "1 member" if count == 1 else f"{count} members"


def use_of_gpu(holder: ClaimInfo, now: float) -> list[str]:
    """The use that the holder of a GPU has reported, in words; nothing for other locks."""
    own = holder.note.get(RESERVED)
    if not isinstance(own, Mapping) or "gpu" not in own:
        return []
    words: list[str] = of_gpus("use_words")(of_gpus("use_of")(holder), now)
    return words


def short_names(names: Sequence[str]) -> dict[str, str]:
    """The members and gates of pools for people: ``gpu/box: GPU-54a033e8`` and ``gpu/box: queue``."""
    found = {name: parts for name in names if (parts := in_pool(name)) is not None}
    begins = [(pool, member[:_SHORT]) for pool, member in found.values() if member is not None]
    told: dict[str, str] = {}
    for name, (pool, member) in found.items():
        if member is not None and of_gpus("has_cards")(pool) and begins.count((pool, member[:_SHORT])) == 1:
            told[name] = f"{pool}: {member[:_SHORT]}"
        else:
            told[name] = f"{pool}: {'queue' if member is None else member}"
    return told


def _widths(rows: Sequence[Mapping[str, str]], columns: Sequence[str], width: int) -> dict[str, int]:
    """The width that each column needs. A name gets a third of the width at most: a longer one is folded."""
    from rich.cells import cell_len

    needed = {
        column: max(len(column), *(cell_len(printable(cells[column], lines=True)) for cells in rows), 0)
        for column in columns
    }
    needed["name"] = min(needed["name"], max(width // 3, _NAME))
    return needed


def _fitting(columns: tuple[str, ...], needed: Mapping[str, int], width: int) -> tuple[str, ...]:
    """The columns to show, so that the holders have enough room; none if that is impossible."""
    for dropped in (None, *_DROPPED):
        columns = tuple(column for column in columns if column != dropped)
        fixed = sum(needed[column] for column in columns if column != "holder") + _BETWEEN * len(columns)
        if width - fixed >= min(_HOLDER, needed["holder"]):
            return columns
    return ()


def _cell(cells: Mapping[str, str], column: str, columns: tuple[str, ...]) -> str:
    """The text of a cell, with what is needed to evict a holder if that has no column of its own."""
    below = ""
    if column == "holder" and "claim" not in columns and cells["claim"]:
        below = f"\nclaim {cells['claim']}"
    if column == "state" and "since" not in columns and cells["since"]:
        below = f"\n{cells['since']}"
    return cells[column] + below


def _stacked(cells: Mapping[str, str]) -> str:
    waiters = f", {cells['waiters']} waiting" if cells["waiters"] else ""
    since = f", {cells['since']}" if cells["since"] else ""
    rows = [cells["name"], f"  {cells['state']}{since}{waiters}"]
    rows += [f"  {cells['holder']}", f"  claim {cells['claim']}"] if cells["claim"] else []
    return "\n".join(row for row in rows if row)


def _state(state: str, holder: ClaimInfo | None, *, short: bool, choosing: bool) -> str:
    if holder is None:
        return state
    word = "choosing" if choosing else holder.state.lower()
    flag = "evicted" if holder.evicted else _FLAGS.get(holder.process, "")
    if flag:
        return flag if short else f"{word}, {flag}"
    if holder.kind == "mutex":
        return word
    of = "/" if short else " of "
    how = f"{holder.weight}{of}{holder.capacity}" if holder.kind == "semaphore" else holder.kind
    if holder.kind == "semaphore" and _is_card(holder.name):
        if short and holder.weight >= holder.capacity:
            return word
        how += " MiB"
    return f"{word} {how}" if short else f"{word} ({how})"


def _is_card(name: str) -> bool:
    found = in_pool(name)
    return found is not None and found[1] is not None and bool(of_gpus("has_cards")(found[0]))


def _who(holder: ClaimInfo, *, why_first: bool = False) -> str:
    """A holder's owner, its reason, its progress, and whether somebody asked it to release."""
    progress = holder.progress
    owner = str(holder.owner)
    why = (f"for: {holder.reason}" if holder.reason else "", str(progress) if progress else "")
    told = (*((*why, owner) if why_first else (owner, *why)), *use_of_gpu(holder, time.time()))
    return "; ".join(part for part in (*told, "asked to release" if holder.release_requests else "") if part)


def _deadline(holder: ClaimInfo, now: float) -> str:
    if holder.deadline is None:
        return (
            "with its process" if holder.process_bound else f"{durations.show(holder.ttl)} after its process"
        )
    left = holder.deadline - now
    return f"in {durations.show(left)}" if left > 0 else "over"
