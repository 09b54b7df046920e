"""The figures of a run of the benchmark, and their table for people."""

from __future__ import annotations

import os
import platform
import sqlite3
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from lockkit import __version__

__all__ = ["Figure", "Unit", "machine", "progress", "sentence", "table"]

Unit: TypeAlias = Literal["us", "ms", "x", "%", "KiB", "calls", "/s"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure.

    Attributes:
        bench: The bench that found it.
        contender: The library or floor that was measured.
        what: The quantity that was measured, in words.
        value: The value, in units of ``unit``; "x" is a ratio to the floor of the same run.
        target: The value to reach, in words; empty without a target.
        met: Whether the target was reached; None without a target.
    """

    bench: str
    contender: str
    what: str
    value: float
    unit: Unit
    target: str = ""
    met: bool | None = None

    def at_most(self, limit: float) -> Figure:
        """The same figure, with a limit as its target."""
        return replace(self, target=f"<= {limit:g} {self.unit}", met=self.value <= limit)

    def at_least(self, limit: float) -> Figure:
        """The same figure, with a lower limit as its target."""
        return replace(self, target=f">= {limit:g} {self.unit}", met=self.value >= limit)


def machine() -> dict[str, Any]:
    """The facts about the machine and its software that explain the figures."""
    return {
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "sqlite": sqlite3.sqlite_version,
        "lockkit": __version__,
    }


def sentence() -> str:
    """The machine, the versions and the date, for the sentence under the table."""
    on = machine()
    return (
        f"{on['cores']} cores ({on['architecture']}), {on['implementation']} {on['python']}, SQLite {on['sqlite']}, "
        f"lockkit {on['lockkit']}, {time.strftime('%Y-%m-%d')}"
    )


def table(figures: Sequence[Figure]) -> str:
    """The figures as a table in Markdown, for people."""
    head = ("bench", "what", "who", "measured", "target", "")
    rows = [
        (
            figure.bench,
            figure.what,
            figure.contender,
            f"{_digits(figure.value)} {figure.unit}",
            figure.target,
            "" if figure.met is None else "reached" if figure.met else "MISSED",
        )
        for figure in figures
    ]
    widths = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]
    lines = [_line(head, widths), "|" + "|".join("-" * (width + 2) for width in widths) + "|"]
    return "\n".join([*lines, *(_line(row, widths) for row in rows)])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"


def _digits(value: float) -> str:
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def progress(text: str) -> None:
    """Print the name of the current bench, if stderr is a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(f"measuring: {text} ...\n")
