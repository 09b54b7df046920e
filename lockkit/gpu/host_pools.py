"""The names of the pools of cards. Each host has a pool of its own, so one store serves many hosts."""

from __future__ import annotations

__all__ = ["ROOT", "host_of", "host_pool"]

ROOT = "gpu"
"""The name under which the pools of all hosts lie."""


def host_pool(host: str) -> str:
    """The name of the pool of a host's cards."""
    return f"{ROOT}/{host}"


def host_of(pool: str) -> str:
    """The host whose cards a pool has: the reverse of :func:`host_pool`."""
    return pool.removeprefix(f"{ROOT}/")
