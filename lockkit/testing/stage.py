"""The stage of a scenario: clients to be closed, a look behind the backend, threads, and waiting."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from lockkit.drivers.waits import Waits
from lockkit.store.spi import Backend
from lockkit.sync.client import Client
from lockkit.sync.lease import Lease
from lockkit.sync.locks import Lock
from lockkit.sync.pools import PoolLeases
from lockkit.testing.children import Child, Parent, in_child
from lockkit.testing.faults import FAULTY_URL, Faults, through
from lockkit.testing.harness import Harness, StoredClaim
from lockkit.testing.shapes import SHAPES, Part, Shape
from lockkit.testing.took import Took, counted

__all__ = ["NotApplicable", "Scenario", "Stage", "Work", "registered", "scenario"]

T = TypeVar("T")
PATIENCE = 30.0
"""Seconds to wait for something that should happen by itself."""


class NotApplicable(Exception):
    """Raised by a scenario without meaning on this store, as for a lacking capability: it is skipped."""


class Work(Generic[T]):
    """A call that runs on a thread of its own."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._result: T | None = None
        self._error: BaseException | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kit-work", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:
            self._error = error
        finally:
            self._done.set()

    @property
    def done(self) -> bool:
        return self._done.is_set()

    def result(self, timeout: float = PATIENCE) -> T:
        """Return what the call returned; raise what the call raised."""
        assert self._done.wait(timeout), f"still running after {timeout:g} s"
        self._thread.join(timeout)
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return self._result  # type: ignore[return-value]

    def error(self, timeout: float = PATIENCE) -> BaseException | None:
        """The exception that the call raised, or None."""
        try:
            self.result(timeout)
        except BaseException as error:
            return error
        return None


class Stage:
    """The surroundings of one scenario: a store, a lock, and the clients and processes that use it.

    Attributes:
        harness: The store.
        shape: The kind of lock.
        name: The name of the lock.
    """

    def __init__(self, harness: Harness, shape: Shape, name: str = "kit/lock") -> None:
        self.harness = harness
        self.shape = shape
        self.name = name
        self._cleanup = contextlib.ExitStack()

    def close(self) -> None:
        """Close everything that the scenario has opened, in reverse order."""
        self._cleanup.close()

    def on_close(self, call: Callable[[], object]) -> None:
        """Call this at the end as well."""
        self._cleanup.callback(call)

    # -- clients, processes and locks

    def client(self, **settings: Any) -> Client:
        """A client of its own."""
        client = self.harness.client(**settings)
        self._cleanup.callback(client.close)
        return client

    def faulty(self, **settings: Any) -> tuple[Client, Faults]:
        """A client, and the faults that its calls meet."""
        faults = Faults()
        plugins = [*settings.pop("plugins", ()), through(self.harness, faults)]
        client = self.harness.client(url=FAULTY_URL, plugins=plugins, **settings)
        self._cleanup.callback(client.close)
        self._cleanup.callback(faults.heal)
        return client, faults

    def backend(self) -> Backend:
        """The backend under test, without a client."""
        backend = self.harness.open()
        self._cleanup.callback(backend.close)
        return backend

    def child(self, part: Callable[[Parent], Any]) -> Child:
        """A forked process that runs ``part`` on this store; it ends with the scenario.

        Raises:
            NotApplicable: No other process can reach this store.
        """
        if self.harness.capabilities.scope == "process":
            raise NotApplicable("no other process can use this store")
        child = Child(part)
        self._cleanup.callback(child.close)
        return child

    def in_child(self, call: Callable[[], Any], *, same_pid: bool = False) -> Any:
        """Return what a call returns in a forked child; with ``same_pid``, one with its parent's pid.

        Raises:
            NotApplicable: There is no fork here.
        """
        if not hasattr(os, "fork"):
            raise NotApplicable("there is no fork here")
        return in_child(call, same_pid=same_pid)

    def holder(self, client: Client, part: int = 0, **options: Any) -> Lock:
        """The lock object of one of the holders. It has the long ttl, unless ``options`` have another."""
        return self._lock(self.shape.holders[part], client, options)

    def newcomer(self, client: Client, **options: Any) -> Lock:
        """The lock object of a client that comes when the lock is full, with the long ttl of holders."""
        return self._lock(self.shape.newcomer, client, options)

    def _lock(self, part: Part, client: Client, options: dict[str, Any]) -> Lock:
        options.setdefault("ttl", self.long_ttl)
        return part.lock(client, options.pop("name", self.name), **options)

    @property
    def long_ttl(self) -> float:
        """Seconds of a ttl that no scenario outlasts, also while processes start on a busy machine."""
        return min(60.0, self.harness.capabilities.max_ttl)

    def fill(self, clients: Sequence[Client] | None = None, **options: Any) -> list[Lease]:
        """Fill the lock with as many holders as fit, each with a client of its own."""
        leases = []
        for at in range(len(self.shape.holders)):
            client = clients[at] if clients else self.client()
            leases.append(self.take(self.holder(client, at, **options)))
        return leases

    def take(self, lock: Lock) -> Lease:
        """Acquire a lock that is free. The lease is released at the end, if not before."""
        lease = lock.try_acquire()
        assert lease is not None, f"{lock.name!r} should be free"
        return self.kept(lease)

    def kept(self, lease: Lease) -> Lease:
        """Have the lease released at the end, if it is not released before."""
        self._cleanup.callback(lease.release)
        return lease

    def kept_all(self, leases: PoolLeases) -> PoolLeases:
        """Have the leases of a pool released at the end, if they are not released before."""
        self._cleanup.callback(leases.release)
        return leases

    # -- observing

    @property
    def soon(self) -> float:
        """Seconds within which given-back claims are gone from the store, long before they would lapse."""
        return max(1.5, self.harness.ttl / 2)

    def lasting(self, times: float = 1.0, *, least: float = 2.0) -> float:
        """Seconds of a real ttl: so many short ones, and enough for heartbeats on a machine that stalls."""
        return max(least, times * self.harness.short_ttl)

    def stored(self, name: str | None = None) -> list[StoredClaim]:
        """The queue as the store has it, without claims past their deadlines."""
        now = self.harness.clock.now()
        rows = self.harness.stored(name or self.name)
        return [row for row in rows if row.deadline is None or row.deadline > now]

    def unchanged(self, before: Sequence[StoredClaim]) -> bool:
        """Whether the queue is the same as before. With real time, holders may have been renewed."""
        after = self.stored()
        if self.harness.virtual or len(after) != len(before):
            return after == list(before)
        kept = [
            replace(new, deadline=old.deadline) if (new.deadline or 0.0) >= (old.deadline or 0.0) else new
            for new, old in zip(after, before, strict=True)
        ]
        return kept == list(before)

    def held(self, name: str | None = None) -> list[str]:
        """Claim ids of the holders, as the store has them."""
        return [row.claim_id for row in self.stored(name) if row.state == "HELD"]

    def work(self, call: Callable[[], T]) -> Work[T]:
        """Run a call on a thread of its own."""
        return Work(call)

    def waiting(self, lock: Lock, timeout: float | None = None) -> Work[Lease]:
        """Let a thread wait for a lock. Returns when its claim is in the queue."""
        return self.queued(lock, lambda: self.kept(lock.acquire(timeout)))

    def queued(self, lock: Lock, call: Callable[[], T]) -> Work[T]:
        """Run a waiting call for a lock on its own thread. Returns when its claim is queued and watched.

        Without ``on_wait``, which asks the store at each poll cap and would hide a missing wake.
        """
        before = _standing(lock)
        work = self.work(call)
        self.until(lambda: _standing(lock) - before or work.done, "the claim is queued")
        return work

    def until(self, what: Callable[[], object], why: str, timeout: float = PATIENCE) -> None:
        """Poll until a condition is true; :class:`~lockkit.testing.took.Took` counts the seconds."""
        took, last = 0.0, time.monotonic()
        pause = itertools.chain([0.001, 0.002, 0.005], itertools.repeat(0.01))
        while not what():
            assert took < timeout, f"not within {timeout:g} s: {why}"
            time.sleep(next(pause))
            now = time.monotonic()
            took += counted(last, now)
            last = now

    def steady(self, what: Callable[[], object], why: str, seconds: float) -> None:
        """Check that something stays true for a while, in real time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert what(), why
            time.sleep(0.01)

    @contextlib.contextmanager
    def within(self, seconds: float, what: str) -> Iterator[None]:
        """Check that the body takes no longer, as :class:`~lockkit.testing.took.Took` counts real time."""
        with Took() as took:
            yield
        assert took.seconds <= seconds, f"{what} took {took.seconds:.2f} s, more than {seconds:g} s"


@dataclass(frozen=True, slots=True)
class Scenario:
    """One named scenario, with one kind of lock. The name begins with the guarantee: ``S7-stale-release``."""

    name: str
    play: Callable[[Stage], None]
    shape: Shape
    shaped: bool
    needs: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return f"{self.name}[{self.shape.name}]" if self.shaped else self.name

    @property
    def guarantee(self) -> str:
        return self.name.partition("-")[0]


_registered: list[Scenario] = []


def _standing(lock: Lock) -> set[object]:
    """The acquisitions of a lock that wait."""
    engine = lock._opening.engine  # noqa: SLF001 (a client does not tell which of its threads wait)
    under_way = [] if engine is None else list(engine.under_way.items())
    return {
        attempt
        for attempt, waits in under_way
        if isinstance(waits, Waits) and waits.standing and attempt.parts[0].terms.name == lock.name
    }


def scenario(
    name: str, shapes: Sequence[Shape] | None = SHAPES, needs: Sequence[str] = ()
) -> Callable[[Callable[[Stage], None]], Callable[[Stage], None]]:
    """Register a scenario.

    Args:
        name: The guarantee, a dash, and a few words.
        shapes: The kinds of lock with which the scenario runs; None if the kind does not matter.
        needs: The capabilities that the scenario needs: ``process_bound``, ``lock_delay``, ...
    """

    def register(play: Callable[[Stage], None]) -> Callable[[Stage], None]:
        assert inspect.getdoc(play), f"{name} has no docstring that says what it shows"
        _registered.extend(
            Scenario(name, play, shape, shapes is not None, tuple(needs)) for shape in shapes or SHAPES[:1]
        )
        return play

    return register


def registered() -> Sequence[Scenario]:
    """Every scenario, in the order of the files; imports them."""
    from lockkit.testing import scenarios

    scenarios.load()
    return tuple(_registered)
