"""The stores of the scenarios: real servers where needed, started once for all scenarios of a file."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lockkit.testing.processes import ServerMissing
from support.servers.etcd import EtcdServer
from support.servers.proxy import Proxy
from support.servers.redis import RedisServer
from support.servers.zookeeper import ZooKeeperServer

__all__ = ["Store", "opened"]

_TICK = 0.15
"""Seconds. The shortest ttl of ZooKeeper is eight ticks."""
_SERVERS: dict[str, tuple[str, Callable[[], AbstractContextManager[Any]], str]] = {
    "redis": ("redis", RedisServer, ""),
    "etcd": ("etcd", EtcdServer, ""),
    "etcd3": ("etcd+grpc", EtcdServer, ""),
    "zookeeper": ("zookeeper", lambda: ZooKeeperServer(tick=_TICK), f"?tick={_TICK}&max_ttl=60"),
}
_LIBRARIES = {"redis": "redis", "etcd3": "etcd3", "zookeeper": "kazoo"}


@dataclass(frozen=True, slots=True)
class Store:
    """A kind of store, with its server.

    Attributes:
        name: The name of the store.
        server: The server; None for the two stores that have none.
    """

    name: str
    server: Any = None

    @property
    def in_processes(self) -> bool:
        """Whether other processes can use the store, so that workers can be processes that are killed."""
        return self.name != "memory"

    @property
    def sees_deaths(self) -> bool:
        """Whether the store removes what a dead process held by itself, at once."""
        return self.name == "sqlite"

    def url(self, folder: Path, address: str | None = None) -> str:
        """The URL of the store.

        Args:
            folder: A folder of the scenario, for the file of an embedded store.
            address: Host and port of a proxy before the server; None for the server itself.
        """
        if self.server is None:
            return f"memory://{folder.name}" if self.name == "memory" else f"sqlite:{folder}/store/locks.db"
        scheme, _, options = _SERVERS[self.name]
        return f"{scheme}://{address or self.server.address}{options}"

    def proxy(self) -> Proxy | None:
        """A proxy before the server; None if there is no server."""
        return None if self.server is None else Proxy((self.server.host, self.server.port))


@contextmanager
def opened(name: str) -> Iterator[Store]:
    """A store for the scenarios of one file; skips them if its server or its library is not installed."""
    # Not importorskip: whoever imports gRPC before lockkit does decides that it cannot be used after a fork.
    if name in _LIBRARIES and importlib.util.find_spec(_LIBRARIES[name]) is None:
        pytest.skip(f"{_LIBRARIES[name]} is not installed")
    if name not in _SERVERS:
        yield Store(name)
        return
    try:
        server = _SERVERS[name][1]()
    except ServerMissing as missing:
        pytest.skip(str(missing))
    with server:
        yield Store(name, server)
