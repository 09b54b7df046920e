"""The libraries that people use, and with the floors all that takes turns with lockkit, by name.

The libraries are optional. Each is used as its own documentation shows it first, with its defaults, but for a
ttl of 30 s where it would have none: a lock without one outlives its holder.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from bench.floors import FLOORS, QUEUES, WOKEN, kazoo
from lockkit.testing.bench.trial import Contender, Maker

__all__ = ["LIBRARIES", "PEERS", "installed", "makers", "missing"]

_INSTALL = {"etcd3": "etcd3 'protobuf<4'"}
"""The arguments for pip, where a library's name is not enough."""
_TTL = 30


def installed(libraries: Mapping[str, str]) -> list[str]:
    """The libraries that are installed and can be used."""
    return [name for name, module in libraries.items() if find_spec(module) and not _unusable(name)]


def missing(libraries: Mapping[str, str]) -> dict[str, str]:
    """The libraries that cannot be used, each with the arguments for pip. A reason is written to stderr."""
    found = installed(libraries)
    absent = {name: _INSTALL.get(name, name) for name in libraries if name not in found}
    for name in absent:
        if why := _unusable(name):
            sys.stderr.write(f"left out: {name}: it cannot be imported: {why}\n")
    return absent


def _unusable(name: str) -> str | None:
    """Why a library that is installed cannot be imported; None where it can, or is not installed."""
    if name != "etcd3" or find_spec(name) is None:
        return None
    try:
        with warnings.catch_warnings():  # it is from 2020
            warnings.simplefilter("ignore", DeprecationWarning)
            import_module(name)
    except Exception as error:
        if isinstance(error, TypeError) and "Descriptors" in str(error):
            return f"it wants protobuf before 4, and here is {metadata.version('protobuf')}"
        return str(error).partition("\n")[0]
    return None


def makers(kind: str, where: str) -> dict[str, Maker]:
    """All contenders on a kind of store, at a URL or in a folder."""
    names = [*LIBRARIES[kind], *FLOORS.get(kind, {}), *WOKEN.get(kind, {}), *QUEUES.get(kind, {})]
    return {name: partial(_made, kind=kind, name=name, where=where) for name in names}


def _made(stack: ExitStack, kind: str, name: str, where: str) -> Contender:
    if name not in LIBRARIES[kind]:
        return {**FLOORS[kind], **WOKEN[kind], **QUEUES[kind]}[name](stack, where)
    module, make = LIBRARIES[kind][name]
    lock = make(import_module(module), stack, where)
    return Contender(lock.acquire, lambda _: lock.release())


def _redis(stack: ExitStack, url: str) -> Any:
    client = import_module("redis").Redis.from_url(url)
    stack.callback(client.close)
    return client


def _etcd(module: Any, stack: ExitStack, url: str) -> Any:
    place = urlsplit(url)
    client = module.client(host=place.hostname, port=place.port)
    stack.callback(client.close if hasattr(client, "close") else client.session.close)
    return client.lock(module.__name__, ttl=_TTL)


def _tooz(_: Any, stack: ExitStack, url: str) -> Any:
    coordinator = import_module("tooz.coordination").get_coordinator(url, b"bench")
    coordinator.start()
    if url.startswith("kazoo:"):  # tooz stops its client, but leaves its sockets open
        stack.callback(coordinator._coord.close)  # noqa: SLF001
    stack.callback(coordinator.stop)
    return coordinator.get_lock(b"tooz")


LIBRARIES: Mapping[str, Mapping[str, tuple[str, Callable[[Any, ExitStack, str], Any]]]] = {
    "local": {
        "filelock": ("filelock", lambda it, _, folder: it.FileLock(f"{folder}/filelock")),
        "portalocker": ("portalocker", lambda it, _, folder: it.Lock(f"{folder}/portalocker", timeout=60)),
        "fasteners": ("fasteners", lambda it, _, folder: it.InterProcessLock(f"{folder}/fasteners")),
    },
    "redis": {
        "redis": ("redis", lambda _, stack, url: _redis(stack, url).lock("redis", timeout=_TTL)),
        "python-redis-lock": (
            "redis_lock",
            lambda it, stack, url: it.Lock(_redis(stack, url), "bench", expire=_TTL),
        ),
        "sherlock": (
            "sherlock",
            lambda it, stack, url: it.RedisLock("sherlock", client=_redis(stack, url), expire=_TTL),
        ),
        "tooz": ("tooz", _tooz),
        "pottery": (
            "pottery",
            lambda it, stack, url: it.Redlock(
                key="pottery", masters={_redis(stack, url)}, auto_release_time=_TTL
            ),
        ),
    },
    "etcd": {"etcd3": ("etcd3", _etcd), "etcd3gw": ("etcd3gw", _etcd)},
    "zookeeper": {
        "kazoo": ("kazoo", lambda _, stack, url: kazoo(stack, url, "kazoo").Lock("/kazoo/lock")),
        "tooz": ("tooz", lambda it, stack, url: _tooz(it, stack, f"kazoo://{urlsplit(url).netloc}")),
    },
}
"""By the kind of store and pip's name of each library: its module, and a maker of its lock, which gets that
and a URL or a folder. ``etcd3`` is python-etcd3; ``redis`` and ``kazoo`` are the clients' own locks."""
PEERS = {kind: {name: module for name, (module, _) in some.items()} for kind, some in LIBRARIES.items()}
"""The module of each library, as a bench names them."""
