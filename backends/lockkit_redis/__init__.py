"""Redis and Valkey: the queue of a name in a few keys, changed by Lua scripts only."""

from __future__ import annotations

from importlib import import_module

from lockkit.hooks import hookimpl
from lockkit.lib.forks import IMPORTS
from lockkit.store.spi import Backend, BackendSpec, OpenOptions
from lockkit_redis.capabilities import CAPABILITIES

__all__ = ["CAPABILITIES", "lockkit_backends"]


def _open(url: str, options: OpenOptions) -> Backend:
    with IMPORTS:
        from lockkit_redis.backend import open_store

    return open_store(url, options)


def _check(url: str) -> None:
    with IMPORTS:
        from lockkit_redis import address, backend  # noqa: F401 (all that opening a store needs)

    address.parse(url)
    import_module("redis")


@hookimpl
def lockkit_backends() -> list[BackendSpec]:
    """Offer ``redis://``, ``rediss://``, ``unix://`` and the same for Valkey."""
    return [
        BackendSpec(
            name="redis",
            schemes=(
                *("redis", "rediss", "redis+sentinel", "redis+cluster", "unix"),
                *("valkey", "valkeys", "valkey+sentinel", "valkey+cluster"),
            ),
            open=_open,
            extra="redis",
            summary="A Redis or Valkey server for a fleet of hosts.",
            capabilities=CAPABILITIES,
            check=_check,
        )
    ]
