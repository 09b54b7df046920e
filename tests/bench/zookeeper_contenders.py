"""The contenders on ZooKeeper: floors that no lock there can beat, and the libraries that people use for it.

All of them stand on kazoo; each is used as its own documentation shows it first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from lockkit.testing.bench.contender import Contender

__all__ = ["FLOOR", "MAKERS", "PEERS", "SEQUENTIAL", "WOKEN"]

FLOOR = "floor: create + delete"
SEQUENTIAL = "floor: create sequential and list, + delete"
WOKEN = "floor: delete, watch, list"
PEERS = {"kazoo": "kazoo", "tooz": "tooz"}
"""pip's name of each library, and the module that it brings. The lock of ``kazoo`` is its own recipe."""


def _client(stack: ExitStack, url: str, folder: str) -> Any:
    module: Any = import_module("kazoo.client")
    client = module.KazooClient(hosts=urlsplit(url).netloc)
    client.start()
    stack.callback(client.close)
    stack.callback(client.stop)
    client.ensure_path(f"/{folder}")
    return client


def _floor(stack: ExitStack, url: str) -> Contender:
    """The plainest thing that excludes: an ephemeral node. Its czxid is the fence."""
    client = _client(stack, url, "floor")
    return Contender(
        FLOOR,
        lambda: client.create("/floor/lock", b"token", ephemeral=True),
        client.delete,
    )


def _sequential(stack: ExitStack, url: str) -> Contender:
    """A place in a queue, and a look at the queue right behind it."""
    client = _client(stack, url, "sequential")

    def acquire() -> str:
        made = client.create_async("/sequential/token-", b"token", ephemeral=True, sequence=True)
        listed = client.get_children_async("/sequential")
        path = made.get()
        listed.get()
        return str(path)

    return Contender(SEQUENTIAL, acquire, client.delete)


def _woken(stack: ExitStack, url: str) -> Contender:
    """The fastest possible hand-off over ZooKeeper: the holder deletes its node; the waiter that watches the node lists the queue and is first."""
    client = _client(stack, url, "woken")

    def acquire() -> str:
        path = str(client.create("/woken/token-", b"token", ephemeral=True, sequence=True))
        while True:
            queue = sorted(client.get_children("/woken"))
            place = queue.index(path.rpartition("/")[2])
            if place == 0:
                return path
            gone = threading.Event()
            if client.exists(f"/woken/{queue[place - 1]}", watch=lambda _, gone=gone: gone.set()):
                gone.wait()

    return Contender(WOKEN, acquire, client.delete)


def _kazoo(stack: ExitStack, url: str) -> Contender:
    lock = _client(stack, url, "kazoo").Lock("/kazoo/lock")
    return Contender("kazoo", lock.acquire, lambda _: lock.release())


def _tooz(stack: ExitStack, url: str) -> Contender:
    coordination: Any = import_module("tooz.coordination")
    coordinator = coordination.get_coordinator(f"kazoo://{urlsplit(url).netloc}", b"bench")
    coordinator.start()
    stack.callback(coordinator.stop)
    lock = coordinator.get_lock(b"tooz")
    return Contender("tooz", lock.acquire, lambda _: lock.release())


MAKERS: dict[str, Callable[[ExitStack, str], Contender]] = {
    FLOOR: _floor,
    SEQUENTIAL: _sequential,
    WOKEN: _woken,
    "kazoo": _kazoo,
    "tooz": _tooz,
}
