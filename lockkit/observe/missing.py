"""The gaps in event journals: lines that are missing, processes that did not close theirs, and holders that were met and have none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from lockkit.facts import Owner
from lockkit.identity import boot_id, process_start
from lockkit.observe.journal_rows import data_of, number_of, owner_of, short_of
from lockkit.observe.past import PastWait

__all__ = ["Rows", "absent_rows", "missed_events", "unended", "unheard"]

Rows: TypeAlias = Mapping[tuple[str, int], Mapping[str, object]]
"""Each line by its writer and its number."""


def missed_events(lines: Rows, since: float | None) -> int:
    """Events that did not reach the journal, as it says itself."""
    found = 0
    for line in lines.values():
        if line["kind"] == "missed" and (since is None or number_of(line, "at") >= since):
            count = data_of(line).get("count")
            found += count if isinstance(count, int) else 1
    return found


def absent_rows(lines: Rows, since: float | None) -> int:
    """Contents that are missing between the first and the last one of their writer, unless it wrote nothing since."""
    return sum(
        max(each) - min(each) + 1 - len(each)
        for each in _writers(lines).values()
        if since is None or _last(each.values()) >= since
    )


def unended(lines: Rows) -> dict[Owner, float]:
    """Processes that did not close their journal, and that are not seen to run, with the time of their last line."""
    found: dict[Owner, float] = {}
    for each in _writers(lines).values():
        if not any(line["kind"] == "closed" for line in each.values()):
            owner = owner_of(next(iter(each.values())))
            if owner.boot_id != boot_id() or process_start(owner.pid) != owner.started:
                found[owner] = max(found.get(owner, 0.0), _last(each.values()))
    return found


def unheard(lines: Rows, waits: Sequence[PastWait], since: float | None) -> tuple[str, ...]:
    """Holders that others had to wait for, and of which no journal has a line."""
    heard = {short_of(str(owner_of(line))) for line in lines.values()}
    met = dict.fromkeys(
        short_of(wait.holder) for wait in waits if wait.holder and (since is None or wait.ended >= since)
    )
    met |= {
        short_of(str(holder)): None
        for line in lines.values()
        if line["kind"] in ("queued", "still_waiting")
        and (since is None or number_of(line, "at") >= since)
        and (holder := data_of(line).get("holder"))
    }
    return tuple(sorted(each for each in met if each not in heard))


def _writers(lines: Rows) -> dict[str, dict[int, Mapping[str, object]]]:
    found: dict[str, dict[int, Mapping[str, object]]] = {}
    for (writer, number), line in lines.items():
        found.setdefault(writer, {})[number] = line
    return found


def _last(lines: Iterable[Mapping[str, object]]) -> float:
    """The time of the last line."""
    return max(number_of(line, "at") for line in lines)
