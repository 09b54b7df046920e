"""The figures of a run: their table for people, and their document, of which the published schema is made."""

from __future__ import annotations

import os
import platform
import sqlite3
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

from lockkit import __version__

__all__ = ["Bench", "Figure", "Unit", "document", "table"]

Unit: TypeAlias = Literal["us", "ms", "x", "%", "KiB", "calls", "/s"]
"""``x`` is a ratio to another contender of the same run."""


class Figure(Struct, frozen=True):
    """One figure. `target` is null if there is no target; `met` says whether the target was reached."""

    bench: str
    contender: str
    what: str
    value: float
    unit: Unit
    target: str | None
    met: bool | None


class Machine(Struct, kw_only=True):
    """The machine and the software that were measured."""

    cores: int | None
    architecture: str
    system: str
    python: str
    implementation: str
    sqlite: str
    lockkit: str


class Missing(Struct):
    """A library that was not measured, because it is not installed."""

    name: str
    install: str


class Bench(Struct, tag_field="schema", tag="lockkit.bench/1", kw_only=True):
    """The figures of one run. `at` is when it ended; `quick` means fewer rounds and smaller counts."""

    at: Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
    took_seconds: Annotated[float, Meta(ge=0)]
    quick: bool
    machine: Machine
    figures: Sequence[Figure]
    missing: Sequence[Missing]


def document(figures: Sequence[Figure], missing: Mapping[str, str], seconds: float, *, quick: bool) -> Bench:
    """The document of a run. ``missing`` has the libraries that are not installed, with names for pip."""
    return Bench(
        at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        took_seconds=round(seconds, 3),
        quick=quick,
        machine=Machine(
            cores=os.cpu_count(),
            architecture=platform.machine(),
            system=platform.system(),
            python=platform.python_version(),
            implementation=platform.python_implementation(),
            sqlite=sqlite3.sqlite_version,
            lockkit=__version__,
        ),
        figures=figures,
        missing=[Missing(name, f"pip install {wanted}") for name, wanted in sorted(missing.items())],
    )


def table(run: Bench) -> str:
    """The figures as a table in Markdown, and a sentence with the machine, the versions and the date."""
    verdicts = {None: "", True: "reached", False: "MISSED"}
    rows = [("bench", "what", "who", "measured", "target", "")]
    for each in run.figures:
        measured = f"{_digits(each.value)} {each.unit}"
        rows.append((each.bench, each.what, each.contender, measured, each.target or "", verdicts[each.met]))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    lines.insert(1, f"|{'|'.join('-' * (width + 2) for width in widths)}|")
    on = run.machine
    return "\n".join(lines) + (
        f"\n\n{on.cores} cores ({on.architecture}), {on.implementation} {on.python}, SQLite {on.sqlite}, "
        f"lockkit {on.lockkit}, {run.at[:10]}{', quick' if run.quick else ''}"
    )


def _digits(value: float) -> str:
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"
