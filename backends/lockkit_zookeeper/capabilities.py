"""The abilities that the store declares."""

from __future__ import annotations

from lockkit.facts import Capabilities

__all__ = ["CAPABILITIES"]

CAPABILITIES = Capabilities(
    scope="fleet",
    fixed_ttl=True,
    drains=True,
    min_hold=False,
    lock_delay=False,
    fence="strict",
    min_ttl=16.0,
    max_ttl=40.0,
    ttl_limits="the limits follow from ?tick= and ?max_ttl= in the URL, "
    "and on the servers from tickTime, minSessionTimeout and maxSessionTimeout",
    waiter_deadline=40.0,
    margin=2.0,
)
"""The capabilities on servers with default ticks of 2 s; see :func:`lockkit_zookeeper.address.declared`."""
