"""What cannot hold on a store that lockkit ships, with the reason. Every allowed exclusion of the kit is in this file."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["EXCLUSIONS"]

EXCLUSIONS: Mapping[str, Mapping[str, str]] = {
    "memory": {},
    "sqlite": {},
}
"""By store: a guarantee (``L1``) or a single scenario (``L1-kill``), and why."""
