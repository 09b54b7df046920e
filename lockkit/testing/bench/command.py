"""The benches of this host, and what runs any of them and prints what they found."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from lockkit.testing.bench.asynchronous import asynchronous
from lockkit.testing.bench.calls import core, pipeline, uncontended
from lockkit.testing.bench.contended import contended, handoff
from lockkit.testing.bench.figures import Figure, document, table
from lockkit.testing.bench.processes import held, stall, startup
from lockkit.testing.bench.standstill import BLOCKED
from lockkit.testing.bench.trial import Trial, local
from lockkit.testing.bench.workers import quiet
from lockkit.testing.processes import ServerMissing

__all__ = ["ASYNCIO", "BENCHES", "Bench", "main"]


class Bench(NamedTuple):
    """One bench.

    Attributes:
        measure: Measures lockkit on a store, and what takes turns with it.
        targets: The limits of lockkit's figures (:attr:`~lockkit.testing.bench.trial.Trial.targets`).
        peers: The libraries that take turns: pip's name of each, and the module that it brings.
    """

    measure: Callable[[Trial], list[Figure]]
    targets: Mapping[str, float] = {}
    peers: Mapping[str, str] = {}


ASYNCIO = {"*, synchronous": 1.6, "*: memory of each": 6, "the loop's longest callback*": BLOCKED}
"""The targets of locks on an event loop: to the synchronous face; in KiB; in milliseconds."""

BENCHES: Mapping[str, Bench] = {
    "uncontended": Bench(lambda trial: [*uncontended(trial), *core(trial)], {"*: the core's own share": 25}),
    "pipeline": Bench(pipeline, {"release, over the store's own": 15}),
    "hand-off": Bench(handoff, {"median": 2, "CPU of the waiter*": 2}),
    "contended": Bench(contended, {"*: grants": 3000, "longest wait* busy processes": 50}),
    "stall": Bench(stall, {"*, worst of*": 50}),
    "held": Bench(held, {"memory of one held lock": 4}),
    "start-up": Bench(startup, {"import lockkit, *": 40, "lockkit run *": 120}),
    "asyncio": Bench(asynchronous, ASYNCIO),
}
"""Every bench by name."""


def main(
    names: Sequence[str] = (),
    *,
    url: str = "",
    quick: bool = False,
    json: bool = False,
    benches: Mapping[str, Bench] = BENCHES,
    missing: Callable[[Mapping[str, str]], Mapping[str, str]] = dict,
) -> int:
    """Run benches, and print what they found. A missed target is only reported, because machines differ.

    Args:
        names: The benches to run; empty for all. A bench without its server is left out, if not named.
        url: The store to measure; empty for SQLite in a temporary folder.
        quick: Whether rounds are fewer and counts smaller.
        json: Whether a document is printed instead of the table.
        benches: Every bench by name.
        missing: Returns which of the libraries of a bench are not installed, each with its name for pip.

    Returns:
        0; 69 without a server that was asked for.
    """
    began = time.monotonic()
    found: list[Figure] = []
    absent: dict[str, str] = {}
    with quiet(), tempfile.TemporaryDirectory(prefix="lockkit-bench-") as folder:
        for name in names or benches:
            bench = benches[name]
            absent |= missing(bench.peers)
            if sys.stderr.isatty():
                sys.stderr.write(f"measuring: {name} ...\n")
            try:
                store = url or f"sqlite:{folder}/lockkit.db"
                found += bench.measure(local(name, bench.targets, Path(folder), store, quick=quick))
            except ServerMissing as error:
                sys.stderr.write(f"left out: {name}: {error}\n")
                if names:
                    return 69
    run = document(found, absent, time.monotonic() - began, quick=quick)
    sys.stdout.write(f"{msgspec.json.encode(run).decode() if json else table(run)}\n")
    if absent and not json:
        what, wanted = ", ".join(absent), " ".join(absent.values())
        sys.stderr.write(f"not measured, because not installed: {what}; to install: pip install {wanted}\n")
    return 0
