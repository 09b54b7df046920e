"""The history in the workers' logs, and the checks of it: the part of the demo that can fail.

A worker logs the times at which it *certainly* held the lock. It reads the clock first and then asks its
lease, so a lease that is valid afterwards was valid at that time. All times are of one CLOCK_BOOTTIME.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lockkit.values.history import Period, falling, overlaps

__all__ = ["Check", "Entry", "HeldSpan", "fences_rise", "holds", "no_overlap", "read"]

End = Literal["released", "lost", "killed"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A worker's log entry: at ``t`` s it ``waits``, ``holds``, is ``sure``, ``released`` or ``lost``."""

    t: float
    event: str
    fence: int = 0


@dataclass(frozen=True, slots=True)
class HeldSpan:
    """A hold from the worker's point of view: certain from ``start`` to ``sure``, and how it ended."""

    worker: str
    start: float
    sure: float
    fence: int
    end: End


@dataclass(frozen=True, slots=True)
class Check:
    """The result of checking one guarantee."""

    check: str
    ok: bool
    message: str


def read(path: Path) -> list[Entry]:
    """The entries of one log. The last one may be incomplete, if its writer was killed."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    found: list[Entry] = []
    for line in text.splitlines():
        try:
            entry = json.loads(line)
            found.append(Entry(float(entry["t"]), str(entry["event"]), int(entry.get("fence", 0))))
        except (ValueError, KeyError):
            continue
    return found


def holds(worker: str, lines: Iterable[Entry]) -> list[HeldSpan]:
    """The holds of one worker. A hold without an end was ended by the worker's death."""
    found: list[HeldSpan] = []
    start: Entry | None = None
    sure = 0.0
    for line in lines:
        if line.event == "holds":
            start, sure = line, line.t
        elif line.event == "sure":
            sure = line.t
        elif start is not None and line.event == "released":
            found.append(HeldSpan(worker, start.t, sure, start.fence, "released"))
            start = None
        elif start is not None and line.event == "lost":
            found.append(HeldSpan(worker, start.t, sure, start.fence, "lost"))
            start = None
    if start is not None:
        found.append(HeldSpan(worker, start.t, sure, start.fence, "killed"))
    return found


def _periods(found: Iterable[HeldSpan]) -> list[Period]:
    return [Period(hold.start, hold.sure, hold.fence, hold.worker) for hold in found]


def no_overlap(found: Sequence[HeldSpan], at_least: int) -> Check:
    """Check that no two workers were certain at the same time. Too few holds prove nothing, and fail."""
    together = overlaps(_periods(found))
    if together:
        who = " and ".join(period.who for period in sorted(together[0]))
        both = min(period.ended for period in together[0]) - max(period.began for period in together[0])
        return Check("overlap", False, f"{who} held it together for {both:.3f} s")
    if len(found) < at_least:
        return Check("overlap", False, f"only {len(found)} holds of {at_least}: that proves nothing")
    return Check("overlap", True, f"{len(found)} holds, no two at the same time")


def fences_rise(found: Sequence[HeldSpan]) -> Check:
    """Check that every hold has a larger fence than those before it."""
    pairs = falling(_periods(found))
    if pairs:
        before, after = pairs[0]
        return Check(
            "fence", False, f"{after.who} got fence {after.fence} after {before.who}'s {before.fence}"
        )
    return Check("fence", True, "every holder got a larger fence than the one before")
