"""``lockkit bench``: the benchmark of the test kit, where that is installed."""

from __future__ import annotations

from importlib import import_module

import click

from lockkit.cli import exits
from lockkit.cli.base import Command, Session
from lockkit.cli.base import command as make

__all__ = ["command"]


class _Passing(Command):
    """Options that are not ours are the benchmark's."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.ignore_unknown_options = True
        return super().parse_args(ctx, args)


@make(
    "bench",
    cls=_Passing,
    examples="""
lockkit bench                  # memory and SQLite, against the floor and against peers
lockkit bench --json
""",
)
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def command(session: Session, args: tuple[str, ...]) -> int:
    """Measure locks on this machine, interleaved with the floor and with other libraries.

    Compare numbers of one run only.
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
    told = [*args, *(["--json"] if session.json else []), *(["--url", session.url] if session.url else [])]
    result = bench.main(told)
    return result if isinstance(result, int) else exits.OK
