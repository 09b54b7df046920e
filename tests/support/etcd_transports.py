"""Both transports to etcd: which of them can be tested here, and how a URL gets its own."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from lockkit_etcd import gateway
from lockkit_etcd.address import parse
from lockkit_etcd.backend import open_store

if TYPE_CHECKING:
    from lockkit.clock import Clock
    from lockkit.store.spi import Backend, OpenOptions
    from lockkit_etcd.transport import Transport

__all__ = ["SCHEMES", "connect", "open_etcd"]

SCHEMES = ["etcd"]
if importlib.util.find_spec("etcd3"):
    SCHEMES.append("etcd+grpc")


def connect(url: str, clock: Clock) -> Transport:
    """The transport that a URL asks for."""
    if "+grpc" not in url.partition(":")[0]:
        return gateway.connect(parse(url), clock)
    from lockkit_etcd3 import transport

    return transport.connect(parse(url), clock)


def open_etcd(url: str, options: OpenOptions) -> Backend:
    """The store that a URL asks for."""
    return open_store(url, options, lambda _, clock: connect(url, clock))
