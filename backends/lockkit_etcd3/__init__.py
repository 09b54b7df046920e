"""etcd over gRPC, by way of the library python-etcd3: a second transport for :mod:`lockkit_etcd`.

Queue, keys and rules are those of lockkit_etcd, and clients of both may share a name.
"""

from __future__ import annotations

from lockkit.hooks import hookimpl
from lockkit.lib.forks import IMPORTS
from lockkit.store.spi import Backend, BackendSpec, OpenOptions
from lockkit_etcd import CAPABILITIES

__all__ = ["lockkit_backends"]


def _open(url: str, options: OpenOptions) -> Backend:
    with IMPORTS:
        from lockkit_etcd.backend import open_store
        from lockkit_etcd3.transport import connect

    return open_store(url, options, connect)


def _check(url: str) -> None:
    with IMPORTS:
        from lockkit_etcd import address, backend  # noqa: F401 (all that opening a store needs)
        from lockkit_etcd3 import library, transport  # noqa: F401

    address.parse(url)
    library.load()


@hookimpl
def lockkit_backends() -> list[BackendSpec]:
    """Offer ``etcd+grpc://`` and ``etcds+grpc://``."""
    return [
        BackendSpec(
            name="etcd-grpc",
            schemes=("etcd+grpc", "etcds+grpc"),
            open=_open,
            extra="python-etcd3",
            summary="An etcd cluster over gRPC, by way of the library python-etcd3.",
            capabilities=CAPABILITIES,
            check=_check,
        ),
    ]
