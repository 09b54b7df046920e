"""The figures of a run of the benchmark, as a document and as a table."""

from __future__ import annotations

import os
import platform
import sqlite3
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from lockkit import __version__

__all__ = ["SCHEMA", "Figure", "Unit", "document", "machine", "progress", "sentence", "table"]

SCHEMA = "lockkit.bench/1"
Unit: TypeAlias = Literal["us", "ms", "x", "%", "KiB", "calls"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure.

    Attributes:
        bench: The bench that found it.
        contender: Who was measured.
        what: What was measured, in words.
        value: In units of ``unit``; "x" is a ratio to the floor of the same run.
        target: What it should reach, in words; empty where there is nothing to reach.
        met: Whether it did; None without a target.
    """

    bench: str
    contender: str
    what: str
    value: float
    unit: Unit
    target: str = ""
    met: bool | None = None

    def at_most(self, limit: float) -> Figure:
        """The same figure with a limit to keep to."""
        return replace(self, target=f"<= {limit:g} {self.unit}", met=self.value <= limit)


def machine() -> dict[str, object]:
    """The machine, in the few words that explain its figures."""
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
    """Where and when, for people: the line under the table."""
    on = machine()
    return (
        f"{on['cores']} cores ({on['architecture']}), {on['implementation']} {on['python']}, SQLite {on['sqlite']}, "
        f"lockkit {on['lockkit']}, {time.strftime('%Y-%m-%d')}"
    )


def document(
    figures: Sequence[Figure], missing: Mapping[str, str], seconds: float, *, quick: bool
) -> dict[str, object]:
    """The JSON document, schema ``lockkit.bench/1``; ``missing`` maps libraries to what pip calls them."""
    return {
        "schema": SCHEMA,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "took_seconds": round(seconds, 3),
        "quick": quick,
        "machine": machine(),
        "figures": [
            {
                "bench": figure.bench,
                "contender": figure.contender,
                "what": figure.what,
                "value": round(figure.value, 4),
                "unit": figure.unit,
                "target": figure.target or None,
                "met": figure.met,
            }
            for figure in figures
        ],
        "missing": [
            {"name": name, "install": f"pip install {wanted}"} for name, wanted in sorted(missing.items())
        ],
    }


def table(figures: Sequence[Figure]) -> str:
    """The figures for people: a table that is also Markdown."""
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
    """Say what is being measured, to people who watch."""
    if sys.stderr.isatty():
        sys.stderr.write(f"measuring: {text} ...\n")
