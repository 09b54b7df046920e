"""What the workers' logs say, and whether it may be: the part of the demo that can fail.

A worker logs when it was *certain* to hold: it reads the clock first and then asks its lease, so a lease that is valid
afterwards was valid at that time. All clocks are CLOCK_BOOTTIME of one machine and may be compared.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lockkit.history import Period, falling, overlaps

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


def _periods(found: Iterable[Hold]) -> list[Period]:
    return [Period(hold.start, hold.sure, hold.fence, hold.worker) for hold in found]


def no_overlap(found: Sequence[Hold], at_least: int) -> Check:
    """No two workers were certain at the same time. Too few holds prove nothing and fail."""
    together = overlaps(_periods(found))
    if together:
        who = " and ".join(period.who for period in sorted(together[0]))
        both = min(period.ended for period in together[0]) - max(period.began for period in together[0])
        return Check("overlap", False, f"{who} held it together for {both:.3f} s")
    if len(found) < at_least:
        return Check("overlap", False, f"only {len(found)} holds of {at_least}: that proves nothing")
    return Check("overlap", True, f"{len(found)} holds, no two at the same time")


def fences_rise(found: Sequence[Hold]) -> Check:
    """Every hold has a larger fence than those before it."""
    pairs = falling(_periods(found))
    if pairs:
        before, after = pairs[0]
        return Check(
            "fence", False, f"{after.who} got fence {after.fence} after {before.who}'s {before.fence}"
        )
    return Check("fence", True, "every holder got a larger fence than the one before")
