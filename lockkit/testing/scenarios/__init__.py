"""The named scenarios: one for each row of the table of failures, and for each promise that no row covers."""

from __future__ import annotations

import importlib

__all__ = ["load"]

_MODULES = (
    "ownership",
    "queueing",
    "deaths",
    "herd",
    "validity",
    "lifetimes",
    "ambiguity",
    "names",
    "leaks",
    "interrupted",
    "closing",
    "layers",
    "forking",
    "ends",
    "face",
    "capabilities",
)


def load() -> None:
    """Import them all, which registers them."""
    for module in _MODULES:
        importlib.import_module(f"{__name__}.{module}")
