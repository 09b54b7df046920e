"""Who is measured: lockkit on its stores, the floor, and the libraries that people use on one host.

The libraries are optional. Each is used as its own documentation shows it first, with its defaults.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lockkit
from lockkit.testing.bench import etcd_contenders, redis_contenders, zookeeper_contenders
from lockkit.testing.bench.contender import Contender

__all__ = ["FLOCK", "FLOOR", "INSTALL", "MEMORY", "PEERS", "Contender", "opened", "peers", "unusable"]

FLOOR = "floor: 2 SQLite commits"
FLOCK = "floor: flock(2), blocking"
MEMORY = "lockkit, memory"
PEERS = {"filelock": "filelock", "portalocker": "portalocker", "fasteners": "fasteners"}
"""What pip calls a library, and the module it brings."""
_MAKERS = {
    "redis": redis_contenders.MAKERS,
    "etcd": etcd_contenders.MAKERS,
    "zookeeper": zookeeper_contenders.MAKERS,
}
"""By the scheme of the URL."""


INSTALL = {"etcd3": "etcd3 'protobuf<4'"}
"""What pip is to be asked for, where that is more than the library's name."""


def peers(libraries: Mapping[str, str] = PEERS) -> tuple[list[str], list[str]]:
    """Which of the other libraries are installed and can be used, and which are missing."""
    found = [
        name for name, module in libraries.items() if find_spec(module) is not None and unusable(name) is None
    ]
    return found, [name for name in libraries if name not in found]


def unusable(name: str) -> str | None:
    """Why a library that is installed cannot be imported; None where it can, or is not installed."""
    if name != "etcd3" or find_spec(name) is None:
        return None
    try:
        with warnings.catch_warnings():  # it is from 2020
            warnings.simplefilter("ignore", DeprecationWarning)
            import_module(name)
    except Exception as error:
        if isinstance(error, TypeError) and "Descriptors" in str(error):
            return f"it cannot be imported: it wants protobuf before 4, and here is {metadata.version('protobuf')}"
        return f"it cannot be imported: {str(error).partition(chr(10))[0]}"
    return None


@contextmanager
def opened(names: list[str], folder: Path, url: str) -> Iterator[dict[str, Contender]]:
    """The contenders of these names, each with its own file in ``folder`` or keys of its own; every other name is lockkit on ``url``."""
    makers = _MAKERS.get(url.partition(":")[0], {})
    with ExitStack() as stack:
        made: dict[str, Contender] = {}
        for name in names:
            if name == FLOOR:
                made[name] = _floor(stack, folder)
            elif name == FLOCK:
                made[name] = _flock(stack, folder)
            elif name in PEERS:
                made[name] = _peer(name, folder)
            elif name in makers:
                made[name] = makers[name](stack, url)
            else:
                made[name] = _lockkit(stack, name, "memory:" if name == MEMORY else url, folder)
        yield made


def _lockkit(stack: ExitStack, name: str, url: str, folder: Path) -> Contender:
    client = stack.enter_context(lockkit.connect(url, state_dir=str(folder)))
    lock = client.lock("bench")
    return Contender(name, lock.acquire, lockkit.Lease.release)


def _floor(stack: ExitStack, folder: Path) -> Contender:
    """What no lock in a SQLite file can beat: one row inserted, committed, deleted, committed."""
    connection = sqlite3.connect(folder / "floor.db", isolation_level=None)
    stack.callback(connection.close)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("CREATE TABLE IF NOT EXISTS floor (name TEXT PRIMARY KEY, token TEXT) WITHOUT ROWID")
    execute = connection.execute
    return Contender(
        FLOOR,
        lambda: execute("INSERT INTO floor VALUES ('bench', 'token')"),
        lambda _: execute("DELETE FROM floor WHERE name = 'bench' AND token = 'token'"),
    )


def _flock(stack: ExitStack, folder: Path) -> Contender:
    """What no hand-off between processes can beat: the kernel's own queue, which knows neither timeout nor order."""
    descriptor = os.open(folder / "flock", os.O_RDWR | os.O_CREAT, 0o600)
    stack.callback(os.close, descriptor)
    return Contender(
        FLOCK,
        lambda: fcntl.flock(descriptor, fcntl.LOCK_EX),
        lambda _: fcntl.flock(descriptor, fcntl.LOCK_UN),
    )


def _peer(name: str, folder: Path) -> Contender:
    module: Any = import_module(name)
    path = str(folder / name)
    lock: Any
    if name == "filelock":
        lock = module.FileLock(path)
    elif name == "portalocker":
        lock = module.Lock(path, timeout=60)
    else:
        lock = module.InterProcessLock(path)
    return Contender(name, lock.acquire, lambda _: lock.release())
