"""The periods of regular jobs, from the alert rules, and the locks whose last hold is kept in the store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lockkit.errors import ConfigError
from lockkit.values import durations

if TYPE_CHECKING:
    from lockkit.config.config import Config

__all__ = ["periods_of", "watched"]


def periods_of(config: Config) -> dict[str, float]:
    """The locks of regular jobs, each with the shortest period in seconds that a rule of missed runs has.

    A disabled rule counts, because Prometheus may alert. ``lockkit config check`` reports invalid periods.
    """
    found: dict[str, float] = {}
    for name, table in config.alerts.get("rules", {}).items():
        periods = table.get("periods")
        if table.get("when", "missed" if name == "missed_run" else None) != "missed" or not isinstance(
            periods, Mapping
        ):
            continue
        for lock, period in periods.items():
            try:
                seconds = _seconds(period)
            except ConfigError:
                continue
            found[lock] = min(seconds, found.get(lock, seconds))
    return found


def watched(config: Config) -> frozenset[str]:
    """Locks whose last hold is kept: those with a period, and names without ``*?[`` in ``metrics.names``."""
    return frozenset(
        (*periods_of(config), *(name for name in config.metrics_names if not set("*?[") & set(name)))
    )


def _seconds(period: object) -> float:
    """A period as a file writes it."""
    if isinstance(period, str):
        return durations.parse(period, what="a period")
    return durations.seconds(period, what="a period")
