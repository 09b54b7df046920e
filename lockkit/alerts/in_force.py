"""The rules in force: the shipped ones, as a configuration changes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lockkit.alerts.rules import Condition, decode
from lockkit.alerts.shipped import SHIPPED

if TYPE_CHECKING:
    from lockkit.config import Config

__all__ = ["of_config"]


def of_config(config: Config) -> dict[str, Condition]:
    """The rules that a configuration puts in force, by name.

    Raises:
        ConfigError: As for :func:`lockkit.alerts.rules.decode`.
    """
    return decode(SHIPPED, config.alerts.get("rules", {}), config.sources)
