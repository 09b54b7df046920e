"""What the workers' logs say, and whether it may be: the part of the demo that can fail.

A worker logs when it was *certain* to hold: it reads the clock first and then asks its lease, so a lease that is valid
afterwards was valid at that time. All clocks are CLOCK_BOOTTIME of one machine and may be compared.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

__all__ = ["Check", "Hold", "Line", "fences_rise", "holds", "no_overlap", "read"]

End = Literal["released", "lost", "killed"]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a worker's log: at ``t`` seconds it ``waits``, ``holds``, is ``sure``, has ``released`` or ``lost``."""

    t: float
    event: str
    fence: int = 0


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold as its worker knew it: certain from ``start`` to ``sure``, and how it ended."""

    worker: str
    start: float
    sure: float
    fence: int
    end: End


@dataclass(frozen=True, slots=True)
class Check:
    """One promise, and whether it was kept."""

    name: str
    ok: bool
    message: str


def read(path: Path) -> list[Line]:
    """The lines of one log; the last may be cut off where its writer was killed."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    found: list[Line] = []
    for line in text.splitlines():
        try:
            entry = json.loads(line)
            found.append(Line(float(entry["t"]), str(entry["event"]), int(entry.get("fence", 0))))
        except (ValueError, KeyError):
            continue
    return found


def holds(worker: str, lines: Iterable[Line]) -> list[Hold]:
    """The holds of one worker; one without an end was cut short by the worker's death."""
    found: list[Hold] = []
    start: Line | None = None
    sure = 0.0
    for line in lines:
        if line.event == "holds":
            start, sure = line, line.t
        elif line.event == "sure":
            sure = line.t
        elif start is not None and line.event == "released":
            found.append(Hold(worker, start.t, sure, start.fence, "released"))
            start = None
        elif start is not None and line.event == "lost":
            found.append(Hold(worker, start.t, sure, start.fence, "lost"))
            start = None
    if start is not None:
        found.append(Hold(worker, start.t, sure, start.fence, "killed"))
    return found


def no_overlap(found: Sequence[Hold], at_least: int) -> Check:
    """No two workers were certain at the same time. Too few holds prove nothing and fail."""
    ordered = sorted(found, key=lambda hold: hold.start)
    longest: Hold | None = None
    for hold in ordered:
        if longest is not None and hold.start <= longest.sure:
            both = min(longest.sure, hold.sure) - hold.start
            return Check(
                "overlap", False, f"{longest.worker} and {hold.worker} held it together for {both:.3f} s"
            )
        if longest is None or hold.sure > longest.sure:
            longest = hold
    if len(ordered) < at_least:
        return Check("overlap", False, f"only {len(ordered)} holds of {at_least}: that proves nothing")
    return Check("overlap", True, f"{len(ordered)} holds, no two at the same time")


def fences_rise(found: Sequence[Hold]) -> Check:
    """Every hold has a larger fence than the one before it."""
    ordered = sorted(found, key=lambda hold: hold.start)
    for before, after in pairwise(ordered):
        if after.fence <= before.fence:
            return Check(
                "fence",
                False,
                f"{after.worker} got fence {after.fence} after {before.worker}'s {before.fence}",
            )
    return Check("fence", True, "every holder got a larger fence than the one before")
