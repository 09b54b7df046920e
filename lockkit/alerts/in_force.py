"""The rules in force: shipped ones, changed by a configuration; and all errors in its alerts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lockkit.alerts.decoding import decode, judged
from lockkit.alerts.opening import channels_of, located, unusable
from lockkit.alerts.rules import Condition
from lockkit.alerts.shipped import SHIPPED
from lockkit.errors import ConfigError

if TYPE_CHECKING:
    from lockkit.config.config import Config

__all__ = ["of_config", "problems"]


def of_config(config: Config) -> dict[str, Condition]:
    """The rules that a configuration puts in force, by name.

    Raises:
        ConfigError: As for :func:`lockkit.alerts.decoding.decode`.
    """
    return decode(SHIPPED, config.alerts.get("rules", {}), config.sources)


def problems(config: Config) -> list[ConfigError]:
    """All errors in a configuration's rules and channels, and the secrets and libraries that are missing."""
    found = judged(SHIPPED, config.alerts.get("rules", {}), config.sources)[1]
    for name, table in config.alerts.get("channels", {}).items():
        try:
            (one,) = channels_of({name: table}, config.sources)
        except ConfigError as error:
            found.append(error)
        else:
            found += [located(config.sources, name, error) for error in unusable(one)]
    return found
