"""Commands from plugins: the hook ``lockkit_commands(cli)``, called once and only when a command isn't built in."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from lockkit.errors import LockkitError

if TYPE_CHECKING:
    import click

__all__ = ["add_commands"]

_log = logging.getLogger("lockkit.cli")


def add_commands(cli: click.Group) -> None:
    """Let every plugin add its commands; what is wrong with one of them, or with the configuration, is only logged.

    Help must work where the configuration doesn't: whoever gets it wrong will ask for help.
    """
    try:
        from lockkit import config
        from lockkit.plugins import PluginManager

        settings = config.load()
        plugins = PluginManager(disabled=settings.disable_plugins)
        plugins.notify("lockkit_commands", cli=cli)
    except LockkitError as error:
        _log.warning("commands of plugins are missing: %s", error)
