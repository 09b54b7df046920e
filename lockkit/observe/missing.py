"""The gaps in event journals: lines that are missing, processes that did not close theirs, and holders that were met and have none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from lockkit.facts import Owner
from lockkit.identity import boot_id, process_start
from lockkit.observe.journal_rows import data_of, number_of, owner_of, short_of
from lockkit.observe.past import PastWait

__all__ = ["LONGEST_HOLD", "Rows", "absent_rows", "missed_events", "unended", "unheard"]

LONGEST_HOLD = 86_400.0
"""Seconds that a hold may have begun before a time that was asked for, and still count if its beginning was removed."""
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
    """Contents that are missing before the last one of their writer, unless it wrote nothing since.

    Those before the first one that is there do not count if that was written at least :data:`LONGEST_HOLD` before ``since``.
    """
    found = 0
    for each in _writers(lines).values():
        if since is None or _last(each.values()) >= since:
            first = min(each)
            found += max(each) - first + 1 - len(each)
            near = since is None or number_of(each[first], "at") > since - LONGEST_HOLD
            if near and not _tells(each[first], since):
                found += max(0, first - 1)
    return found


def _tells(first: Mapping[str, object], since: float | None) -> bool:
    """Whether the first content of a writer that is there tells itself that some are missing, so that it is counted as a gap already."""
    return first["kind"] == "missed" and (since is None or number_of(first, "at") >= since)


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
    """Holders that others had to wait for, and of which no journal has a line, or none that says that this claim was granted."""
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
    granted = {line.get("claim") for line in lines.values() if line["kind"] == "acquired"}
    silent = {
        f"{short_of(str(data.get('holder', '')))} (claim {claim})"
        for line in lines.values()
        if since is None or number_of(line, "at") >= since
        if isinstance(claim := (data := data_of(line)).get("holder_claim"), str)
        if claim not in granted and short_of(str(data.get("holder", ""))) in heard
    }
    return tuple(sorted({each for each in met if each not in heard} | silent))


def _writers(lines: Rows) -> dict[str, dict[int, Mapping[str, object]]]:
    found: dict[str, dict[int, Mapping[str, object]]] = {}
    for (writer, number), line in lines.items():
        found.setdefault(writer, {})[number] = line
    return found


def _last(lines: Iterable[Mapping[str, object]]) -> float:
    """The time of the last line."""
    return max(number_of(line, "at") for line in lines)
