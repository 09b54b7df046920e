"""Model stores: what executes requests, step by step, on virtual time.

Two readings of the same interface. :class:`Atomic` is the memory store: every request is one step, and copies of a
request may arrive late, as over a network. :class:`~lockkit.testing.simulation.statements.Statements` is the embedded
store: a request is a sequence of statements, each atomic, others in between.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, cast

from lockkit.facts import Capabilities, Owner
from lockkit.plugins import PluginManager
from lockkit.spi import Backend, Claim, Lapsed, OpenOptions, Watch
from lockkit.testing.simulation.clock import VirtualClock
from lockkit.testing.simulation.network import Job, Request

__all__ = ["LATEST_CREATE", "Atomic", "ModelStore", "StoredRow", "memory"]

LATEST_CREATE = 30.0
"""Seconds after which a creating acquire is refused as late (the ``not_after`` of a store with a network before it)."""


_OWNER = Owner(host="simulated")


@functools.cache
def memory() -> tuple[Callable[..., Backend], Callable[..., Any]]:
    """Backend and store classes of the memory store, found as anybody's plugin is found.

    The core imports no backend; and a store opened by its URL is kept for the life of the process, which thousands of
    simulated worlds must not be.
    """
    backend: Any = PluginManager().open("memory://simulation", OpenOptions(owner=_OWNER))
    return type(backend), type(backend._store)  # noqa: SLF001 - the simulation looks into the store


class StoredRow(Protocol):
    """What the invariants look at in a claim as stored."""

    token: str
    state: Any
    fence: int
    weight: int
    capacity: int
    ttl: float
    since: float
    deadline: float
    evicted: bool


class ModelStore(Protocol):
    """A store that a simulation can execute requests on."""

    name: str
    late_copies: bool
    """Whether a request may arrive after its caller has stopped waiting."""
    sees_death: bool
    """Whether the claims of a dead client are removed at once."""
    wakes_waiters: bool
    """Whether a claim that newly fits wakes its own watch, whatever that watches."""
    stale: bool
    """Whether statements compare with a ``now`` from before they run."""

    @property
    def capabilities(self) -> Capabilities: ...

    def rows(self, name: str) -> Sequence[StoredRow]:
        """The queue as it lies in the store, lapsed claims included."""

    def job(self, request: Request) -> Job:
        """Begin to execute a request."""

    def operate(self, method: str, args: tuple[Any, ...]) -> Job:
        """An operator's request: evict, resize; or settle, to look at the store when all is done."""

    def watch(self, name: str, blockers: Sequence[str], wake: Callable[[], None], claim: Claim) -> Watch: ...

    def died(self, client: str) -> None:
        """A client's process is gone."""


class Atomic:
    """The memory store as the executor of requests: each one step."""

    name = "atomic"
    late_copies = True
    sees_death = False
    wakes_waiters = True
    stale = False

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        backend_type, store_type = memory()
        self.store: Any = store_type(clock)
        self.backend: Backend = backend_type(self.store, OpenOptions(owner=_OWNER, clock=clock))

    @property
    def capabilities(self) -> Capabilities:
        return self.backend.capabilities

    def rows(self, name: str) -> Sequence[StoredRow]:
        queue = self.store.queues.get(name)
        return cast("Sequence[StoredRow]", list(queue.rows.values()) if queue is not None else [])

    def job(self, request: Request) -> Job:
        yield from self._steps()
        now = self._clock.now()
        if request.method == "acquire" and request.args[1] and now > request.sent + LATEST_CREATE:
            return Lapsed("late")
        if request.replay:
            self._mark(request)
        answer = self.perform(request)
        if request.replay:
            self._mark(request)
        return answer

    def perform(self, request: Request) -> Any:
        """Execute it on the memory backend."""
        call = getattr(self.backend, request.method)
        return call(*request.args, request.budget, **request.keywords)

    def operate(self, method: str, args: tuple[Any, ...]) -> Job:
        yield from self._steps()
        if method == "settle":
            self.store.settle(args[0], self._clock.now(), {})
            return None
        return getattr(self.backend, method)(*args)

    def watch(self, name: str, blockers: Sequence[str], wake: Callable[[], None], claim: Claim) -> Watch:
        return self.backend.watch(name, blockers, wake, claim)

    def died(self, client: str) -> None:
        """Nobody notices: the ttl rules."""

    def _steps(self) -> Iterator[str]:
        """No statements within a request."""
        return iter(())

    def _mark(self, request: Request) -> None:
        """Note that an earlier copy may still be under way: only the sender knows, so the request says so."""
        claim = request.claims[0]
        queue = self.store.queues.get(claim.terms.name)
        row = queue.rows.get(claim.token) if queue is not None else None
        if row is not None:
            row.replayed = True
