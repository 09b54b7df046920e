"""Both transports to etcd: which can be tested here, the URLs of each, and their calls without exchanges."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lockkit.store.budgets import left
from lockkit_etcd import gateway
from lockkit_etcd.address import parse
from lockkit_etcd.backend import open_store
from lockkit_etcd.transport import Found, Ranged

if TYPE_CHECKING:
    from lockkit.lib.clock import Clock
    from lockkit.store.exchanges import Exchange
    from lockkit.store.spi import Backend, OpenOptions
    from lockkit_etcd.cluster import Cluster

__all__ = ["CALLS", "SCHEMES", "Asked", "Exchanging", "as_exchange", "asked", "connect", "open_etcd"]

SCHEMES = ["etcd"]
if importlib.util.find_spec("etcd3"):
    SCHEMES.append("etcd+grpc")
CALLS = ("txn", "range", "grant", "revoke", "keepalive", "remaining", "status")


class Asked:
    """The calls of a transport, performed at once with a budget; a call set here replaces the transport's."""

    transport: Cluster[Any]

    def __init__(self, transport: Cluster[Any]) -> None:
        self.__dict__["transport"] = transport

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.transport, name)
        if name == "fresh":
            return lambda: Asked(found())
        if name not in CALLS:
            return found

        def performed(*words: Any) -> Any:
            answer = self.transport.perform(found(*words[:-1], time.monotonic() + words[-1]))
            return (
                (answer.header, Found(answer.kvs, answer.more, answer.count)) if name == "range" else answer
            )

        return performed

    def __setattr__(self, name: str, call: Any) -> None:
        setattr(self.transport, name, as_exchange(call) if name in CALLS else call)

    def __delattr__(self, name: str) -> None:
        self.transport.__dict__.pop(name, None)  # it may have been set by way of another of these


class Exchanging:
    """The other way round: a transport of exchanges over calls that are performed at once."""

    def __init__(self, calls: Any) -> None:
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._calls, name)
        return as_exchange(found) if name in CALLS else found

    def fresh(self) -> Exchanging:
        return self


def as_exchange(call: Callable[..., Any]) -> Callable[..., Exchange[Any]]:
    """An exchange of a transport, from a call that takes a budget."""

    def exchange(*words: Any) -> Exchange[Any]:
        yield from ()
        answer = call(*words[:-1], left(words[-1]))
        if isinstance(answer, tuple):  # of a read
            header, found = answer
            return Ranged(found.kvs, found.more, found.count, header=header)
        return answer

    return exchange


def asked(store: Any) -> Asked:
    """The calls of the transport of an open store."""
    return Asked(store.store.transport)


def connect(url: str, clock: Clock) -> Asked:
    """The transport that a URL asks for, its calls performed at once."""
    return Asked(_transport(url, clock))


def _transport(url: str, clock: Clock) -> Cluster[Any]:
    if "+grpc" not in url.partition(":")[0]:
        return gateway.connect(parse(url), clock)
    from lockkit_etcd3 import transport

    return transport.connect(parse(url), clock)


def open_etcd(url: str, options: OpenOptions) -> Backend:
    """The store that a URL asks for."""
    return open_store(url, options, lambda _, clock: _transport(url, clock))
