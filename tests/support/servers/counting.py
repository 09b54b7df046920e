"""A proxy that counts the requests and bytes of clients, for Redis, etcd's JSON gateway and ZooKeeper."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from support.servers.proxy import Flow, ProxiedConnection, Proxy

__all__ = ["Count", "CountingProxy"]


class Count(NamedTuple):
    """The traffic so far: requests, and bytes in both directions."""

    requests: int
    sent: int
    received: int

    def __sub__(self, before: Count) -> Count:
        return Count(*(now - then for now, then in zip(self, before, strict=True)))


def _of_redis(data: bytearray) -> int:
    """Take the complete commands (arrays of bulk strings) from the start of some bytes; returns how many."""
    found = 0
    while (head := re.match(rb"\*(\d+)\r\n", data)) is not None:
        at = head.end()
        for _ in range(int(head[1])):
            size = re.compile(rb"\$(\d+)\r\n").match(data, at)
            if size is None:
                return found
            at = size.end() + int(size[1]) + 2
        if at > len(data):
            return found
        del data[:at]
        found += 1
    return found


def _of_etcd(data: bytearray) -> int:
    """The same for requests of HTTP with a length."""
    found = 0
    while (end := data.find(b"\r\n\r\n")) >= 0:
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", data[: end + 2])
        at = end + 4 + (int(length[1]) if length else 0)
        if at > len(data):
            return found
        del data[:at]
        found += 1
    return found


def _of_zookeeper(data: bytearray) -> int:
    """The same for frames with a length of four bytes."""
    found = 0
    while len(data) >= 4 and len(data) >= (at := 4 + int.from_bytes(data[:4], "big")):
        del data[:at]
        found += 1
    return found


_TAKE: Mapping[str, Callable[[bytearray], int]] = {
    "redis": _of_redis,
    "etcd": _of_etcd,
    "zookeeper": _of_zookeeper,
}


class CountingProxy(Proxy):
    """A proxy in front of a server.

    Args:
        store: ``redis``, ``etcd`` or ``zookeeper``.
        server: The host and port to pass everything on to.
    """

    def __init__(self, store: str, server: tuple[str, int]) -> None:
        self._take = _TAKE[store]
        self._left: dict[Flow, bytearray] = {}
        self._requests = self._sent = self._received = 0
        super().__init__(server)

    def passing(self, connection: ProxiedConnection, flow: Flow, data: bytes) -> None:
        if flow.to_server:
            self._sent += len(data)
            left = self._left.setdefault(flow, bytearray())
            left += data
            self._requests += self._take(left)
        else:
            self._received += len(data)
        super().passing(connection, flow, data)

    def count(self) -> Count:
        """The traffic so far."""
        return Count(self._requests, self._sent, self._received)
