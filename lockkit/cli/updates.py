"""The time between two updates of ``--watch``."""

from __future__ import annotations

import click

from lockkit.cli.suggesting import WORDS

__all__ = ["between_updates"]


def between_updates(interval: float | None, *, watch: bool, usual: float) -> float:
    """The seconds between two updates of ``--watch``.

    Raises:
        click.UsageError: There is an interval, and nothing is watched.
    """
    if interval is None:
        return usual
    if not watch:
        ctx = click.get_current_context()
        from lockkit.cli import guessing

        guessing.keep(ctx, [*ctx.command_path.split()[1:], *ctx.meta[WORDS], "--watch"])
        ctx.fail("--interval needs --watch")
    return interval
