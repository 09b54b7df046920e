"""Generator of docs pages: ``python -m lockkit.cli.docs [DOCS]`` writes reference/cli.md, schema/*.json."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from lockkit.cli.main import COMMANDS, cli
from lockkit.cli.schemas import SCHEMAS

__all__ = ["files", "main"]

_WIDTH = 100
_HEAD = """# Command line

This page is `lockkit COMMAND --help` for every command (`python -m lockkit.cli.docs` writes it).
"""


def files() -> dict[str, str]:
    """The text of every generated file, by its path under ``docs``."""
    found = {
        f"schema/{name}.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
        for name, schema in SCHEMAS.items()
    }
    found["reference/cli.md"] = _reference()
    return found


def main(docs: Path) -> None:
    """Write the generated files."""
    for name, text in files().items():
        path = docs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _reference() -> str:
    parts = [_HEAD, f"```text\n{_help(cli, 'lockkit', None)}\n```\n"]
    root = click.Context(cli, info_name="lockkit", terminal_width=_WIDTH)
    for section, names in COMMANDS.items():
        parts.append(f"## {section}\n")
        for name in names:
            command = cli.get_command(root, name)
            assert command is not None
            for title, text in _pages(command, f"lockkit {name}", root):
                parts.append(f"### {title}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def _pages(command: click.Command, title: str, parent: click.Context) -> Iterator[tuple[str, str]]:
    name = title.rpartition(" ")[2]
    yield title, _help(command, name, parent)
    if isinstance(command, click.Group):
        ctx = click.Context(command, info_name=name, parent=parent, terminal_width=_WIDTH)
        for sub in command.list_commands(ctx):
            child = command.get_command(ctx, sub)
            assert child is not None
            yield f"{title} {sub}", _help(child, sub, ctx)


def _help(command: click.Command, name: str, parent: click.Context | None) -> str:
    settings = {"terminal_width": _WIDTH, **command.context_settings}
    with click.Context(command, info_name=name, parent=parent, **settings) as ctx:
        text = click.unstyle(command.get_help(ctx))
    return "\n".join(line.rstrip() for line in text.splitlines())


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
