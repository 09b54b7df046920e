"""Trials: lockkit on one store, and the contenders that take turns with it, here those of this host."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import lockkit
from lockkit.testing.bench.figures import Figure, Unit

__all__ = [
    "FLOCK",
    "FLOOR",
    "MEMORY",
    "NAMESPACE",
    "Contender",
    "Maker",
    "Trial",
    "connected",
    "local",
    "own",
]

FLOOR = "floor: 2 SQLite commits"
FLOCK = "floor: flock(2), blocking"
"""No lock on this host can beat the two floors."""
MEMORY = "lockkit, memory"
NAMESPACE = "lockkit-bench"
"""The namespace of the benchmark, so that a store in use may be measured too."""


class Contender(NamedTuple):
    """One kind of lock.

    Attributes:
        acquire: Takes the lock, and waits as long as necessary. Its result is the argument of ``release``.
        release: Releases the lock.
    """

    acquire: Callable[[], Any]
    release: Callable[[Any], object]

    def both(self) -> None:
        """Acquire and release, once."""
        self.release(self.acquire())


Maker: TypeAlias = Callable[[ExitStack], Contender]
"""Opens a contender until the stack is closed. Other processes open it too, so pickle has to know it."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One bench on one store.

    Attributes:
        bench: The name of the bench in its figures.
        targets: Limits of lockkit's figures, by patterns of :mod:`fnmatch`: the least rate, the most else.
        folder: A folder for files.
        url: The store.
        store: The name of lockkit on that store.
        quick: Whether rounds are fewer and counts smaller.
        makers: All contenders, by name.
        floors: What no lock there can beat; to the first of them all ratios are computed.
        woken: What no hand-off there can beat.
        queues: What no lock can beat that several processes want.
        awake: The floor that stays awake for an answer, where lockkit does too.
        peers: The libraries that take turns.
        waiting: The peers that can wait.
        fair: The peers that let nobody overtake.
        slower: The peer that lockkit has to be ahead of where nobody else wants the lock.
        counted: Whether the server of the store counts what follows; both are 0 otherwise.
        cpu: Returns the CPU seconds that the server has used so far.
        requests: Returns the number of requests that clients have sent to the server so far.
    """

    bench: str
    targets: Mapping[str, float]
    folder: Path
    url: str
    store: str
    quick: bool
    makers: Mapping[str, Maker]
    floors: Sequence[str]
    woken: str
    queues: Sequence[str]
    awake: str = ""
    peers: Sequence[str] = ()
    waiting: Sequence[str] = ()
    fair: Sequence[str] = ()
    slower: str = ""
    counted: bool = False
    cpu: Callable[[], float] = float
    requests: Callable[[], int] = int

    @contextmanager
    def opened(self, *names: str) -> Iterator[dict[str, Contender]]:
        """The contenders of these names, open for the length of a block."""
        with ExitStack() as stack:
            yield {name: self.makers[name](stack) for name in names}

    def figure(
        self, what: str, value: float, unit: Unit, who: str = "", aim: tuple[str, bool] | None = None
    ) -> Figure:
        """A figure of lockkit, or of another contender (``who``).

        ``aim`` is a target, and whether it was reached. Without one, lockkit has that of the table.
        """
        who = who or self.store
        if aim is None and who.startswith("lockkit"):
            for pattern, limit in self.targets.items():
                if fnmatchcase(what, pattern):
                    sign, met = (">=", value >= limit) if unit == "/s" else ("<=", value <= limit)
                    aim = f"{sign} {limit:g} {unit}", met
        return Figure(self.bench, who, what, round(value, 4), unit, *(aim or (None, None)))


def local(bench: str, targets: Mapping[str, float], folder: Path, url: str, *, quick: bool) -> Trial:
    """A trial of lockkit on any store, with the floors of this host."""
    sqlite = url.startswith("sqlite:")
    store = f"lockkit, {'SQLite' if sqlite else url.partition(':')[0]}"
    makers: dict[str, Maker] = {
        FLOOR: partial(_two_commits, folder=folder),
        FLOCK: partial(_flock, folder=folder),
        MEMORY: partial(own, url="memory:", folder=folder),
        store: partial(own, url=url, folder=folder),
    }
    floors, queues = ([FLOOR], [FLOCK]) if sqlite else ([], [])
    return Trial(bench, targets, folder, url, store, quick, makers, floors, FLOCK, queues)


def connected(url: str, folder: Path) -> lockkit.Client:
    """A client of the store at ``url`` that keeps its state in ``folder``."""
    return lockkit.connect(url, namespace=NAMESPACE, state_dir=os.fspath(folder))


def own(stack: ExitStack, url: str, folder: Path) -> Contender:
    """The lock of lockkit on a store."""
    return Contender(stack.enter_context(connected(url, folder)).lock("bench").acquire, lockkit.Lease.release)


def _two_commits(stack: ExitStack, folder: Path) -> Contender:
    """Insert a row, commit, delete it, commit: no lock in a SQLite file can be faster."""
    connection = sqlite3.connect(folder / "floor.db", isolation_level=None)
    stack.callback(connection.close)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("CREATE TABLE IF NOT EXISTS floor (name TEXT PRIMARY KEY, token TEXT) WITHOUT ROWID")
    execute = connection.execute
    return Contender(
        lambda: execute("INSERT INTO floor VALUES ('bench', 'token')"),
        lambda _: execute("DELETE FROM floor WHERE name = 'bench' AND token = 'token'"),
    )


def _flock(stack: ExitStack, folder: Path) -> Contender:
    """Wait in the kernel, without timeout or order. No hand-off between processes can be faster."""
    descriptor = os.open(folder / "flock", os.O_RDWR | os.O_CREAT, 0o600)
    stack.callback(os.close, descriptor)
    return Contender(
        lambda: fcntl.flock(descriptor, fcntl.LOCK_EX), lambda _: fcntl.flock(descriptor, fcntl.LOCK_UN)
    )
