"""The ttl that a store grants in place of one that it does not have: the nearest.

The store is a matter of configuration: the ttl of a program must not decide whether the program runs.
"""

from __future__ import annotations

from lockkit.errors import ConfigError
from lockkit.facts import Capabilities
from lockkit.values.durations import exact, limits

__all__ = ["UsualTtl", "fitted", "misfit", "refused"]


class UsualTtl(float):
    """A ttl in seconds that nobody asked for. It is fitted silently, also with ``strict``."""

    __slots__ = ()


def fitted(ttl: float, can: Capabilities) -> float:
    """The ttl nearest to this one that the store's capabilities allow, in seconds."""
    return min(max(float(ttl), can.min_ttl), can.max_ttl)


def misfit(asked: float, granted: float, store: str, can: Capabilities) -> str:
    """One sentence about a ttl that is not the one that was asked for, with the way to get that.

    Args:
        asked: Seconds that the program or its user asked for.
        granted: Seconds that the store grants instead.
        store: The store, without secrets.
        can: The capabilities of the store.
    """
    how = can.ttl_limits or f"use a store that has it: this one grants {limits(can.min_ttl, can.max_ttl)}"
    return (
        f"a ttl of {exact(asked)} was asked for, and {store} grants {exact(granted)}; "
        f"for the one asked for, {how}"
    )


def refused(
    asked: float, granted: float, can: Capabilities, *, name: str | None = None, source: str = ""
) -> ConfigError:
    """The error for a ttl that the store does not have, where ``strict`` refuses another one.

    Args:
        asked: Seconds that the program or its user asked for.
        granted: Seconds that the store would grant instead.
        can: The capabilities of the store.
        name: The lock.
        source: Where the ttl is from, if that is not the caller's code.
    """
    origin = f"this ttl comes from: {source}; " if source else ""
    hint = (
        f"{origin}set another with --ttl on the command line, or ttl= in code, "
        "or leave strict out to get the nearest"
    )
    return ConfigError(
        f"strict refuses a ttl of {exact(asked)}, because this store grants {exact(granted)} instead",
        name=name,
        hint=f"{hint}; {can.ttl_limits}" if can.ttl_limits else hint,
    )
