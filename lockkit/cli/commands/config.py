"""``lockkit config``: show, check or create the configuration."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import click

from lockkit.cli import completing, exits, guessing, output
from lockkit.cli.base import Group, Session, option
from lockkit.cli.base import command as make

__all__ = ["command"]

command = Group(
    "config",
    help="""Show, check or create the configuration.

    The sources, of which a later one wins over an earlier one: /etc/lockkit/config.toml,
    ~/.config/lockkit/config.toml, the project's lockkit.toml or pyproject.toml, LOCKKIT_* variables, the
    URL's query, options.
    """,
    examples="""
lockkit config show            # every setting, and where its value came from
lockkit config check           # everything that is wrong, not only the first
lockkit config init            # write a file with everything commented out
""",
)


@make("show", group=command, examples="lockkit config show\nlockkit config show ttl url")
@click.argument("keys", metavar="[KEY]...", nargs=-1, shell_complete=completing.settings)
def _show(session: Session, keys: tuple[str, ...]) -> None:
    """Show every setting with its value and the source of the value. Secrets are hidden.

    With KEY only the named settings are shown.
    """
    rows = session.config().describe()
    if keys:
        guessing.check(keys, [key for key, _, _ in rows], "setting")
        rows = [row for row in rows if row[0] in keys]
    if session.json:
        from lockkit.cli import documents, parts

        settings = [parts.Setting(key=key, value=_value(value), source=source) for key, value, source in rows]
        output.write_json(documents.Config(settings=settings), indent=True)
        return
    from lockkit.cli.tables import add, show, table

    made = table("setting", "value", "from")
    for row in rows:
        add(made, *row)
    show(made)


def _value(text: str) -> str | float | bool | list[str] | None:
    """A value for JSON: a text, number, boolean or list of texts; None if the setting is not set."""
    if text == "-":
        return None
    try:
        value: str | float | bool | list[str] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text  # "(set)": a setting of a plugin, which may be secret
    return value


@make("check", group=command, examples="lockkit config check && echo fine")
def _check(session: Session) -> int:
    """Check every file, variable and profile, and report all problems. Exits 78 if there are any.

    Each source is checked by itself. If all can be read, their combination is checked, and whether the store
    supports it: with the options given here, and with each other profile. No store is contacted, and nothing
    is created.
    """
    from lockkit.plugins.checking import check_files

    findings = check_files(session.url, profile=session.profile, namespace=session.namespace)
    wrong = [finding for finding in findings if finding.severity == "error"]
    if session.json:
        from lockkit.cli import documents

        output.print_json(documents.Findings, findings=findings, indent=True)
    else:
        for one in findings:
            output.say(f"{one.severity}: {one.message}" + (f" ({one.hint})" if one.hint else ""))
        if not findings:
            output.say("ok: there are no configuration files; every setting has its default")
    return exits.CONFIG if wrong else exits.OK


@make(
    "init",
    group=command,
    short="Write a file that explains every setting.",
    examples="lockkit config init\nlockkit config init --file lockkit.toml",
)
@option(
    "--file",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write here.  [default: the user's file]",
)
@option("--force", is_flag=True, help="Overwrite an existing file.")
def _init(session: Session, *, path: Path | None, force: bool) -> None:
    """Write a configuration file in which every setting is explained and commented out.

    Each is shown with its default, or with an example if there is none. Each works when you uncomment it.
    """
    from lockkit.config.as_toml import template
    from lockkit.config.places import make_folders

    if path is None:
        base = os.environ.get("XDG_CONFIG_HOME", "")
        folder = Path(base) if base.startswith("/") else Path.home() / ".config"
        path = folder / "lockkit" / "config.toml"
    if path.exists() and not force:
        raise exits.CommandFailed(
            f"{path} exists already", code=exits.FAILED, kind="exists", hint="--force overwrites it"
        )
    try:
        make_folders(path.parent)
        path.write_text(template(), encoding="utf-8")
    except OSError as error:
        raise exits.CommandFailed(
            f"cannot write {path}: {error.strerror}", code=exits.CONFIG, kind="unwritable"
        ) from error
    if session.json:
        from lockkit.cli import documents

        output.write_json(documents.ConfigInit(file=str(path)))
    else:
        output.say(f"wrote {path}")
