"""The plugins' own tables of settings, ``[plugins.<dist>]``, as the plugins themselves judge them."""

from __future__ import annotations

from collections.abc import Callable

from lockkit.config.config import Config
from lockkit.config.layers import canonical
from lockkit.errors import ConfigError
from lockkit.lib.printable import printable
from lockkit.plugins.calling import from_signal

__all__ = ["SETTINGS_HOOK", "has_table", "misfit"]

SETTINGS_HOOK = "lockkit_settings"
"""The hook in which a plugin reads its own table."""


def has_table(dist: str, config: Config) -> bool:
    """Whether the configuration has a table for a distribution."""
    return canonical(dist) in config.plugins


def misfit(plugin: str, call: Callable[..., object], config: Config) -> ConfigError | None:
    """Let one plugin read its settings; the error if it refuses them."""
    try:
        call(config=config)
    except ConfigError as error:
        return error
    except BaseException as error:
        if from_signal(error):
            raise
        refused = ConfigError(
            f"plugin {plugin}: its settings cannot be read: {type(error).__name__}: {printable(str(error))}",
            hint=f"correct its table [plugins.<distribution>], or leave the plugin out:"
            f" disable_plugins = [{plugin!r}]",
        )
        refused.__cause__ = error
        return refused
    return None
