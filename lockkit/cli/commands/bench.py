"""``lockkit bench``: the benchmark of the test kit, if that is installed."""

from __future__ import annotations

from importlib import import_module

import click

from lockkit.cli import exits
from lockkit.cli.base import Session, option
from lockkit.cli.base import command as make

__all__ = ["BENCHES", "command"]

BENCHES = ("uncontended", "pipeline", "hand-off", "contended", "stall", "held", "start-up", "asyncio")
"""The benchmarks; listed here so that help and completion need not load the test kit."""


@make(
    "bench",
    examples="""
lockkit bench                  # in memory, and on a temporary SQLite file
lockkit bench --quick          # about a minute
lockkit bench uncontended hand-off --json
lockkit bench --url redis://localhost:6379
""",
)
@click.argument("benches", nargs=-1, metavar="[BENCH]...", type=click.Choice(BENCHES))
@option("--quick", is_flag=True, help="Use fewer rounds and smaller counts.")
def command(session: Session, benches: tuple[str, ...], *, quick: bool) -> int:
    """Measure lockkit on this machine, in turns with the floor: the least work of any lock on this host.

    BENCH is start-up, uncontended, pipeline, hand-off, contended, stall, held or asyncio; the default is all.
    With --url that store is measured, in the namespace lockkit-bench. Compare only numbers of the same run.
    """
    try:
        bench = import_module("lockkit.testing.bench.command")
    except ImportError as error:
        raise exits.CommandFailed(
            f"the benchmark cannot be loaded: {error}",
            code=exits.UNAVAILABLE,
            kind="missing",
            hint='pip install "lockkit[testing]"',
        ) from error
    result: int = bench.main(benches, url=session.url or "", quick=quick, json=session.json)
    return result
