"""Commands from plugins: the hook ``lockkit_commands(cli)``, called once, for a command not built in."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from lockkit.errors import LockkitError

if TYPE_CHECKING:
    import click

__all__ = ["add_commands"]

_log = logging.getLogger("lockkit.cli")


def add_commands(cli: click.Group) -> None:
    """Let every plugin add its commands. Errors of a plugin or of the configuration are only logged.

    Help must work even if the configuration is wrong, because then people need it.
    """
    try:
        from lockkit.config import config
        from lockkit.plugins import PluginManager

        settings = config.load()
        plugins = PluginManager(disabled=settings.disable_plugins)
        plugins.notify("lockkit_commands", cli=cli)
    except LockkitError as error:
        _log.warning("commands of plugins are missing: %s", error)
