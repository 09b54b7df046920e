"""The memory store: one process, nothing on disk. For unit tests, threads and simulations."""

from __future__ import annotations

from lockkit.facts import Capabilities
from lockkit.hooks import hookimpl
from lockkit.store.spi import Backend, BackendSpec, OpenOptions

__all__ = ["CAPABILITIES", "lockkit_backends"]

CAPABILITIES = Capabilities(scope="process", process_bound=True, fence="strict")


def _open(url: str, options: OpenOptions) -> Backend:
    from lockkit_memory.backend import open_store

    return open_store(url, options)


def _check(url: str) -> None:
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
