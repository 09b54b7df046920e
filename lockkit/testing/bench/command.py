"""The command line of the benchmark."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeAlias

from lockkit.testing.bench.asynchronous import asynchronous
from lockkit.testing.bench.calls import pipeline, uncontended
from lockkit.testing.bench.contended import contended
from lockkit.testing.bench.document import document
from lockkit.testing.bench.figures import Figure, progress, sentence, table
from lockkit.testing.bench.processes import handoff, held, stall, startup
from lockkit.testing.bench.workers import quiet

__all__ = ["BENCHES", "Bench", "Run", "main", "parsed", "place", "show"]

Bench: TypeAlias = Callable[..., list[Figure]]
"""``bench(folder, url, store, quick=...) -> figures``."""

BENCHES: Mapping[str, Bench] = {
    "uncontended": uncontended,
    "pipeline": pipeline,
    "hand-off": handoff,
    "contended": contended,
    "stall": stall,
    "held": held,
    "start-up": startup,
    "asyncio": asynchronous,
}
"""Every bench by name."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the benchmark.

    Attributes:
        benches: The names of the benches to run.
        named: Whether the command line named them; otherwise all benches run.
        url: The store to measure; empty for SQLite in a temporary folder.
        quick: Whether rounds are fewer and counts smaller.
        json: Whether a document is printed instead of the table.
        began: The start of the run, on the monotonic clock.
    """

    benches: Sequence[str]
    named: bool
    url: str
    quick: bool
    json: bool
    began: float


def main(args: Sequence[str] | None = None) -> int:
    """Measure lockkit on this host and print the figures.

    Returns:
        0, even if a target is missed: machines differ, so a missed target is only reported.
    """
    run = parsed(args, BENCHES)
    found: list[Figure] = []
    with quiet(), place(run) as (folder, url, store):
        for name in run.benches:
            progress(name)
            found += BENCHES[name](folder, url, store, quick=run.quick)
    show(run, found)
    return 0


@contextmanager
def place(run: Run) -> Iterator[tuple[Path, str, str]]:
    """A temporary folder, the URL of the store to measure, and the name of lockkit on that store in figures."""
    with tempfile.TemporaryDirectory(prefix="lockkit-bench-") as folder:
        url = run.url or f"sqlite:{folder}/lockkit.db"
        kind = "SQLite" if url.startswith("sqlite:") else url.partition(":")[0]
        yield Path(folder), url, f"lockkit, {kind}"


def show(run: Run, found: Sequence[Figure], missing: Mapping[str, str] | None = None) -> None:
    """Print the figures, and the libraries that are ``missing``, each with its name for pip."""
    missing = missing or {}
    if run.json:
        written = document(found, missing, time.monotonic() - run.began, quick=run.quick)
        sys.stdout.write(json.dumps(written) + "\n")
        return
    sys.stdout.write(f"{table(found)}\n\n{sentence()}{', quick' if run.quick else ''}\n")
    if missing:
        wanted = " ".join(missing.values())
        sys.stderr.write(
            f"not measured, because not installed: {', '.join(missing)}; to install: pip install {wanted}\n"
        )


class _Parser(argparse.ArgumentParser):
    """A parser that ends the process with 64 after a usage error, like every lockkit command."""

    def error(self, message: str) -> NoReturn:
        self.exit(64, f"{self.prog}: {message}\n")


def parsed(args: Sequence[str] | None, benches: Mapping[str, Bench], program: str = "lockkit bench") -> Run:
    """Read the command line. A wrong one ends the process with 64."""
    parser = _Parser(program, description="Measure locks on this machine. Compare figures of one run only.")
    parser.add_argument(
        "bench", nargs="*", help=f"the benches to run: {', '.join(benches)}; the default is all"
    )
    parser.add_argument("--quick", action="store_true", help="use fewer rounds and smaller counts")
    parser.add_argument("--json", action="store_true", help="print a document of the schema lockkit.bench/1")
    parser.add_argument("--url", help="the store to measure, instead of SQLite in a temporary folder")
    options = parser.parse_args(args)
    unknown = [name for name in options.bench if name not in benches]
    if unknown:
        parser.error(f"no such bench: {', '.join(unknown)}; the benches are {', '.join(benches)}")
    return Run(
        options.bench or list(benches),
        bool(options.bench),
        options.url or "",
        options.quick,
        options.json,
        time.monotonic(),
    )
