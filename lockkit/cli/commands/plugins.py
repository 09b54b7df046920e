"""``lockkit plugins``: the installed plugins, their hooks, and errors of loading them."""

from __future__ import annotations

import click

from lockkit.cli import completing, exits, guessing, output
from lockkit.cli.base import Session
from lockkit.cli.base import command as make

__all__ = ["command"]


@make(
    "plugins",
    examples="""
lockkit plugins
lockkit plugins redis
lockkit plugins --json | jq '.plugins[] | select(.error)'
LOCKKIT_DISABLE_PLUGINS=noisy lockkit plugins
""",
)
@click.argument("names", metavar="[PLUGIN]...", nargs=-1, shell_complete=completing.plugins)
def command(session: Session, names: tuple[str, ...]) -> int:
    """List plugins with version, hooks, import time and load errors. Exits 1 if one could not be loaded.

    With PLUGIN only the named plugins are listed.
    """
    from lockkit.plugins import PluginManager

    settings = session.config()
    plugins = PluginManager(disabled=settings.disable_plugins)
    plugins.misfits(settings)  # leaves out those whose table is missing, as connect does
    found = plugins.describe()
    if names:
        guessing.check(names, [info.name for info in found], "plugin")
        found = [info for info in found if info.name in names]
    if session.json:
        from lockkit.cli import documents

        output.print_json(documents.Plugins, plugins=found, indent=True)
    else:
        from lockkit.cli.tables import add, show, table

        made = table("plugin", "from", "version", "hooks", "import")
        for info in found:
            state = "disabled" if info.disabled else ", ".join(info.hooks) or "-"
            took = "-" if info.import_time is None else f"{info.import_time * 1000:.0f} ms"
            add(made, info.name, info.dist or info.source, info.version or "-", state, took)
        show(made)
        for info in found:
            if info.error:
                output.say(f"{info.name}: {info.error}")
    return exits.FAILED if any(info.error for info in found) else exits.OK
