"""The records that keep what is known of the cards of a host, in the store."""

from __future__ import annotations

from lockkit.records import Records, change

__all__ = ["Records", "change", "host_pool"]


def host_pool(host: str) -> str:
    """The name of the pool of a host's cards."""
    return f"gpu/{host}"
