"""``lockkit help``: the help page of a command, for those who know ``git help``."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import click

from lockkit.cli import output
from lockkit.cli.base import Session
from lockkit.cli.base import command as make
from lockkit.config.suggesting import quoted

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = ["command"]


def _complete(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    below = _page(ctx, ctx.params.get("words") or ()).command
    names = below.list_commands(ctx) if isinstance(below, click.Group) else []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


@make("help", examples="lockkit help\nlockkit help run\nlockkit help config check")
@click.argument("words", metavar="[COMMAND]...", nargs=-1, shell_complete=_complete)
@click.pass_context
def command(ctx: click.Context, /, session: Session, words: tuple[str, ...]) -> None:
    """Show the help page of COMMAND, as lockkit COMMAND --help does; without COMMAND, list all."""
    page = _page(ctx, words)
    text = page.get_help()
    if session.json:
        from lockkit.cli import documents

        output.write_json(documents.Help(command=page.command_path, text=click.unstyle(text)), indent=True)
    else:
        print(text)


def _page(ctx: click.Context, words: tuple[str, ...]) -> click.Context:
    """The context of the command that the words lead to."""
    found = ctx.find_root()
    for at, word in enumerate(words):
        group = found.command
        below = group.get_command(found, word) if isinstance(group, click.Group) else None
        if below is None:
            _refuse(ctx, found, words, at)
        found = click.Context(below, info_name=word, parent=found, **below.context_settings)
    return found


def _refuse(ctx: click.Context, found: click.Context, words: tuple[str, ...], at: int) -> NoReturn:
    from lockkit.cli import guessing
    from lockkit.config.settings import nearest

    group = found.command
    names = group.list_commands(found) if isinstance(group, click.Group) else []
    close = nearest(words[at], names)
    if close or not names:
        guessing.keep(ctx, ["help", *words[:at], *filter(None, [close])])
    ctx.fail(f"there is no command {found.command_path} {quoted(words[at])}")
