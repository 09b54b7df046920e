"""ZooKeeper: the claims for a name are the children of one node, and a claim lives as long as its session."""

from __future__ import annotations

from importlib import import_module

from lockkit.facts import Capabilities
from lockkit.hooks import hookimpl
from lockkit.lib.forks import IMPORTS
from lockkit.store.spi import Backend, BackendSpec, OpenOptions
from lockkit_zookeeper.capabilities import CAPABILITIES

__all__ = ["CAPABILITIES", "lockkit_backends"]


def _open(url: str, options: OpenOptions) -> Backend:
    with IMPORTS:
        from lockkit_zookeeper.backend import open_store

    return open_store(url, options)


def _declared(url: str) -> Capabilities:
    with IMPORTS:
        from lockkit_zookeeper.address import declared, parse

    return declared(parse(url))


def _check(url: str) -> None:
    with IMPORTS:
        from lockkit_zookeeper import address, backend  # noqa: F401 (all that opening a store needs)

    address.parse(url)
    import_module("kazoo")


@hookimpl
def lockkit_backends() -> list[BackendSpec]:
    """Offer ``zookeeper://``, ``zookeepers://`` (TLS) and ``zk://``."""
    return [
        BackendSpec(
            name="zookeeper",
            schemes=("zookeeper", "zookeepers", "zk"),
            open=_open,
            extra="zookeeper",
            summary="A ZooKeeper ensemble for a fleet of hosts.",
            capabilities=CAPABILITIES,
            declared=_declared,
            check=_check,
        )
    ]
