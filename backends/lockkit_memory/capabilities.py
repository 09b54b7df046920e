"""The abilities that the store declares."""

from __future__ import annotations

from lockkit.facts import Capabilities

__all__ = ["CAPABILITIES"]

CAPABILITIES = Capabilities(scope="process", process_bound=True, drains=True, fence="strict")
