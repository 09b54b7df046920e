"""Scenarios that cannot hold on a shipped store, with reasons. Every allowed exclusion of the kit is here."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["EXCLUSIONS"]

EXCLUSIONS: Mapping[str, Mapping[str, str]] = {
    "memory": {},
    "sqlite": dict.fromkeys(
        ("S12-late-after-giving-up", "S12-late-after-success", "S12-late-after-busy", "S12-abandon-first"),
        "a statement has run when its call returns, or it never does: "
        "there are no late copies to be told apart",
    ),
}
"""By store: a single scenario (``L1-kill``) or a whole guarantee (``L1``), and why."""
