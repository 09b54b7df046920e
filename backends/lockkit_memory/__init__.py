"""The memory store: one process, nothing on disk. For unit tests, threads and simulations."""

from __future__ import annotations

from lockkit.hooks import hookimpl
from lockkit.lib.forks import IMPORTS
from lockkit.store.spi import Backend, BackendSpec, OpenOptions
from lockkit_memory.capabilities import CAPABILITIES

__all__ = ["CAPABILITIES", "lockkit_backends"]


def _open(url: str, options: OpenOptions) -> Backend:
    with IMPORTS:
        from lockkit_memory.backend import open_store

    return open_store(url, options)


def _check(url: str) -> None:
    with IMPORTS:
        from lockkit_memory.backend import label

    label(url)


@hookimpl
def lockkit_backends() -> list[BackendSpec]:
    """Offer ``memory:`` and ``memory://label``."""
    return [
        BackendSpec(
            name="memory",
            schemes=("memory",),
            open=_open,
            summary="One process, nothing on disk: for tests and for threads.",
            capabilities=CAPABILITIES,
            check=_check,
        )
    ]
