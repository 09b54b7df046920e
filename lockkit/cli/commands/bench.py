"""``lockkit bench``: the benchmark of the test kit, where that is installed."""

from __future__ import annotations

from importlib import import_module

import click

from lockkit.cli import exits
from lockkit.cli.base import Session, option
from lockkit.cli.base import command as make

__all__ = ["BENCHES", "command"]

BENCHES = ("uncontended", "pipeline", "hand-off", "stall", "held", "start-up", "redis", "etcd", "zookeeper")
"""Told here, so that help and completion need not load the test kit."""


@make(
    "bench",
    examples="""
lockkit bench                  # every store, beside floor and peers
lockkit bench --quick          # 20 s, and 1-2 min more for each server
lockkit bench redis            # on a server of its own, gone with the run
lockkit bench uncontended hand-off --json
""",
)
@click.argument("benches", nargs=-1, metavar="[BENCH]...", type=click.Choice(BENCHES))
@option("--quick", is_flag=True, help="Fewer rounds and smaller counts.")
def command(session: Session, benches: tuple[str, ...], *, quick: bool) -> int:
    """Measure locks on this machine, interleaved with the floor and with other libraries.

    BENCH is uncontended, pipeline, hand-off, stall, held, start-up, redis, etcd or zookeeper; all of them by default.
    Compare numbers of one run only. A store whose server or client library is not installed is left out, which is said.
    """
    try:
        bench = import_module("lockkit.testing.bench")
    except ImportError as error:
        raise exits.CommandFailed(
            f"the benchmark cannot be loaded: {error}",
            code=exits.UNAVAILABLE,
            kind="missing",
            hint='pip install "lockkit[testing]"',
        ) from error
    told = [*benches, *(["--quick"] if quick else []), *(["--json"] if session.json else [])]
    result = bench.main([*told, *(["--url", session.url] if session.url else [])])
    return result if isinstance(result, int) else exits.OK
