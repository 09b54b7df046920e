"""Which transport carries an address."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from lockkit.clock import Clock
from lockkit_etcd.address import Address
from lockkit_etcd.transport import Transport

__all__ = ["connect"]


def connect(address: Address, clock: Clock) -> Transport:
    """The transport that an address asks for. Its library is imported here, not before.

    Raises:
        ImportError: python-etcd3 is asked for and not installed.
        ConfigError: It cannot be imported, or a certificate or key cannot be used; the error says why.
        Refused: It cannot be used in this forked child.
    """
    module = import_module("lockkit_etcd.grpc_transport" if address.grpc else "lockkit_etcd.gateway")
    return cast("Transport", module.connect(address, clock))
