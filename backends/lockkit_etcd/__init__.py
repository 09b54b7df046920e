"""etcd: the queue of a name under a prefix of keys, each claim bound to a lease of its own."""

from __future__ import annotations

from lockkit.hooks import hookimpl
from lockkit.lib.forks import IMPORTS
from lockkit.store.spi import Backend, BackendSpec, OpenOptions
from lockkit_etcd.capabilities import CAPABILITIES

__all__ = ["CAPABILITIES", "lockkit_backends"]


def _open(url: str, options: OpenOptions) -> Backend:
    with IMPORTS:
        from lockkit_etcd.backend import open_store

    return open_store(url, options)


def _check(url: str) -> None:
    with IMPORTS:
        from lockkit_etcd import address, backend  # noqa: F401 (all that opening a store needs)

    address.parse(url)


def _transactions(url: str) -> object:
    with IMPORTS:
        from lockkit_etcd.guarding import Transactions

    return Transactions(url)


@hookimpl
def lockkit_backends() -> list[BackendSpec]:
    """Offer ``etcd://`` and ``etcds://``."""
    return [
        BackendSpec(
            name="etcd",
            schemes=("etcd", "etcds"),
            open=_open,
            extra="etcd",
            summary="An etcd cluster for a fleet of hosts.",
            capabilities=CAPABILITIES,
            check=_check,
            transactions=_transactions,
        )
    ]
