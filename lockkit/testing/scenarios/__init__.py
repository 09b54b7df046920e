"""The named scenarios of the kit, by subject. Each one belongs to a guarantee."""

from __future__ import annotations

import importlib

__all__ = ["load"]

_MODULES = (
    "ownership",
    "queueing",
    "handoffs",
    "deaths",
    "stopped",
    "telling",
    "herd",
    "validity",
    "lifetimes",
    "unused",
    "ambiguity",
    "names",
    "leaks",
    "interrupted",
    "closing",
    "layers",
    "forking",
    "ends",
    "deadlocks",
    "choosers",
    "reentrancy",
    "shortform",
    "face",
    "remarks",
    "drains",
    "capabilities",
)


def load() -> None:
    """Import all scenarios, which registers them."""
    for module in _MODULES:
        importlib.import_module(f"{__name__}.{module}")
