"""``lockkit completion``: the script that makes a shell complete commands, options and lock names."""

from __future__ import annotations

import sys

import click

from lockkit.cli.base import Session
from lockkit.cli.base import command as make

__all__ = ["command"]


@make(
    "completion",
    examples="""
lockkit completion bash > ~/.local/share/bash-completion/completions/lockkit
lockkit completion zsh > ~/.zfunc/_lockkit  # and fpath+=(~/.zfunc)
lockkit completion fish > ~/.config/fish/completions/lockkit.fish
""",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(session: Session, shell: str) -> None:  # noqa: ARG001 (every command has a session)
    """Print a completion script for SHELL. Lock names are completed too, from the store."""
    from click.shell_completion import get_completion_class

    from lockkit.cli.main import cli

    made = get_completion_class(shell)
    assert made is not None
    script = made(cli, {}, "lockkit", "_LOCKKIT_COMPLETE")
    # Not source(): for bash that starts the bash on this machine to look at its version.
    sys.stdout.write(script.source_template % script.source_vars())
