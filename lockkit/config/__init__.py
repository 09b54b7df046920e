"""The configuration: which value of a setting wins, and why. What programs import of it is here."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lockkit.config.config import Config, load, plugin_settings

__all__ = ["Config", "load", "plugin_settings"]


def __getattr__(name: str) -> object:
    if name in __all__:  # late: most modules of this folder are needed without it
        from lockkit.config import config

        return getattr(config, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
