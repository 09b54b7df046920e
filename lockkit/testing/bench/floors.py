"""Contenders that need no other library: lockkit on a store, and the floors, which no lock on this host can beat."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import TypeAlias, cast

import lockkit
from lockkit.testing.bench.client import connected
from lockkit.testing.bench.contender import Contender

__all__ = ["FLOCK", "FLOOR", "HERE", "MEMORY", "Opener", "opened", "opener"]

FLOOR = "floor: 2 SQLite commits"
FLOCK = "floor: flock(2), blocking"
MEMORY = "lockkit, memory"
HERE = __name__
Opener: TypeAlias = Callable[[list[str], Path, str], AbstractContextManager[dict[str, Contender]]]


def opener(module: str) -> Opener:
    """The function ``opened`` of a module, which is given by name, so that other processes can import it too."""
    return cast("Opener", import_module(module).opened)


@contextmanager
def opened(names: list[str], folder: Path, url: str) -> Iterator[dict[str, Contender]]:
    """The contenders of these names, each with its own file in ``folder``. A name that is not a floor stands for lockkit on ``url``."""
    with ExitStack() as stack:
        made: dict[str, Contender] = {}
        for name in names:
            if name == FLOOR:
                made[name] = _two_commits(stack, folder)
            elif name == FLOCK:
                made[name] = _flock(stack, folder)
            else:
                made[name] = _lockkit(stack, name, "memory:" if name == MEMORY else url, folder)
        yield made


def _lockkit(stack: ExitStack, name: str, url: str, folder: Path) -> Contender:
    client = stack.enter_context(connected(url, folder))
    lock = client.lock("bench")
    return Contender(name, lock.acquire, lockkit.Lease.release)


def _two_commits(stack: ExitStack, folder: Path) -> Contender:
    """Insert a row, commit, delete it, commit: no lock in a SQLite file can be faster."""
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
    """Wait in the kernel, which supports neither a timeout nor an order. No hand-off between processes can be faster."""
    descriptor = os.open(folder / "flock", os.O_RDWR | os.O_CREAT, 0o600)
    stack.callback(os.close, descriptor)
    return Contender(
        FLOCK,
        lambda: fcntl.flock(descriptor, fcntl.LOCK_EX),
        lambda _: fcntl.flock(descriptor, fcntl.LOCK_UN),
    )
