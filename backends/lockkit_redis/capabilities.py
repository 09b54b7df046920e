"""The abilities that the store declares."""

from __future__ import annotations

from lockkit.facts import Capabilities

__all__ = ["CAPABILITIES"]

CAPABILITIES = Capabilities(
    scope="fleet", drains=True, failover_safe=False, fence="clock", waiter_deadline=6.0
)
