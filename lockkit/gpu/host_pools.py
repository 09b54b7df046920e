"""The names of the pools of cards: one for each host, and another for its simulated cards."""

from __future__ import annotations

__all__ = [
    "ROOT",
    "SIMULATED_ROOT",
    "has_cards",
    "host_of",
    "host_pool",
    "is_simulated",
    "root_of",
    "root_of_pool",
    "simulated",
]

ROOT = "gpu"
"""The name under which the pools of all hosts lie."""
SIMULATED_ROOT = "gpu-sim"
"""The name under which the pools of simulated cards lie."""
_SIMULATED = " (simulated)"


def simulated(host: str) -> str:
    """The name that a host has in the store for its simulated cards."""
    return f"{host}{_SIMULATED}"


def is_simulated(host: str) -> bool:
    """Whether a name in the store is that of a host's simulated cards."""
    return host.endswith(_SIMULATED)


def root_of(host: str) -> str:
    """The name under which the pool of a host's cards lies."""
    return SIMULATED_ROOT if is_simulated(host) else ROOT


def host_pool(host: str) -> str:
    """The name of the pool of a host's cards."""
    return f"{root_of(host)}/{host.removesuffix(_SIMULATED)}"


def host_of(pool: str) -> str:
    """The host whose cards a pool has: the reverse of :func:`host_pool`."""
    root, _, host = pool.partition("/")
    return simulated(host) if root == SIMULATED_ROOT else host


def root_of_pool(pool: str) -> str:
    """The name under which a pool of cards lies."""
    return pool.partition("/")[0]


def has_cards(pool: str) -> bool:
    """Whether a pool is that of a host's cards, whose capacities are in MiB."""
    root, mark, host = pool.partition("/")
    return root in (ROOT, SIMULATED_ROOT) and bool(mark and host)
