"""The abilities that the store declares."""

from __future__ import annotations

from lockkit.facts import Capabilities

__all__ = ["CAPABILITIES"]

CAPABILITIES = Capabilities(scope="host", process_bound=True, fence="clock", min_ttl=0.1, waiter_deadline=0.0)
