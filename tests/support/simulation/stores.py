"""Model stores: what executes requests, step by step, on virtual time.

Three readings of one interface. :class:`Atomic` is the memory store: every request is one step, and copies
of a request may arrive late, as over a network. :class:`~support.simulation.statements.Statements` is the
embedded store: a request is a sequence of atomic statements, others in between.
:class:`~support.simulation.onredis.OnRedis` is no model: the scripts of the Redis store run on a real server,
and the store's own code runs in each client.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, cast

from lockkit.facts import Capabilities, Owner
from lockkit.plugins import PluginManager
from lockkit.protocol.effects import Abandon, Release, RemoveMany
from lockkit.protocol.running import ask
from lockkit.store.spi import Backend, Claim, Lapsed, OpenOptions, Watch
from support.simulation.clock import VirtualClock
from support.simulation.network import Job, Reply, Request, lost, refused

__all__ = ["DRAINS", "LATEST_CREATE", "Atomic", "ModelStore", "NothingInTheClient", "StoredRow", "memory"]

LATEST_CREATE = 30.0
"""Seconds after which a creating acquire is refused as late (``not_after`` of a store behind a network)."""


DRAINS = ("set", "clear", "turn_away")
"""The operator's requests that are those of :class:`lockkit.store.spi.Drains`."""
_OWNER = Owner(host="simulated")


@functools.cache
def memory() -> tuple[Callable[..., Backend], Callable[..., Any]]:
    """Backend and store classes of the memory store, found as anybody's plugin is found.

    The core imports no backend; and a store opened by URL is kept for the life of the process, which
    thousands of simulated worlds must not be.
    """
    backend: Any = PluginManager().open("memory://simulation", OpenOptions(owner=_OWNER))
    return type(backend), type(backend._store)  # noqa: SLF001 - the simulation looks into the store


class StoredRow(Protocol):
    """The fields of a stored claim that the invariants look at."""

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
    removes_together: int
    """The most claims that one request removes."""
    stale: bool
    """Whether statements compare with a ``now`` from before they run."""

    @property
    def capabilities(self) -> Capabilities: ...

    def rows(self, name: str) -> Sequence[StoredRow]:
        """The queue as it lies in the store, lapsed claims included."""

    def job(self, request: Request) -> Job:
        """Begin to execute a request."""

    def operate(self, method: str, args: tuple[Any, ...]) -> Job:
        """An operator's request: evict, resize; set, clear, turn_away of a drain; settle, to look at last."""

    def watch(self, name: str, blockers: Sequence[str], wake: Callable[[], None], claim: Claim) -> Watch: ...

    def died(self, client: str) -> None:
        """A client's process is gone."""

    # -- the store's own code in the client

    def sent(self, request: Request) -> None:
        """A request leaves its client; with a ``reply`` at once if it could not."""

    def read(self, request: Request, reply: Reply) -> Reply | None:
        """A reply arrives: what the caller gets; None if the client first sends more for the same request."""

    def ended(self, request: Request, how: str) -> Reply:
        """The client waits for no answer any more; what its caller gets.

        ``how``: ``delayed`` and ``interrupted`` leave the request as a late copy; else it never arrives.
        """

    def forget(self, request: Request) -> None:
        """A late copy never arrives."""

    def befall(self, what: str) -> None:
        """Something happens to the server: see :data:`~support.simulation.faults.BLOWS`."""

    def close(self) -> None:
        """The run is over."""


class NothingInTheClient:
    """For a store that is all model: its clients keep nothing in mind, and nothing happens to its server."""

    def sent(self, request: Request) -> None:
        """See :class:`ModelStore`."""

    def read(self, request: Request, reply: Reply) -> Reply | None:  # noqa: ARG002
        """See :class:`ModelStore`."""
        return reply

    def ended(self, request: Request, how: str) -> Reply:  # noqa: ARG002
        """See :class:`ModelStore`."""
        return Reply(error=refused() if how == "refused" else lost(how))

    def forget(self, request: Request) -> None:
        """See :class:`ModelStore`."""

    def befall(self, what: str) -> None:
        """See :class:`ModelStore`."""
        raise NotImplementedError(what)

    def close(self) -> None:
        """See :class:`ModelStore`."""


class Atomic(NothingInTheClient):
    """The memory store as the executor of requests: each one step."""

    name = "atomic"
    late_copies = True
    sees_death = False
    removes_together = 3
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
        if request.creates and now > request.sent + LATEST_CREATE:
            return Lapsed("late")
        if isinstance(request.what, RemoveMany):
            return (yield from self._remove(request, request.what))
        if request.replay:
            self._mark(request)
        answer = self.perform(request)
        if request.replay:
            self._mark(request)
        return answer

    def _remove(self, request: Request, many: RemoveMany) -> Job:
        """Remove many claims, one in each step; after a failure some are removed."""
        for claim, abandon, how in many.removals:
            yield f"removes {claim.token}"
            one = (Abandon if abandon else Release)(claim, many.budget, how)
            self.perform(dataclasses.replace(request, what=one))
        return [None] * len(many.removals)

    def perform(self, request: Request) -> Any:
        """Execute it on the memory backend."""
        return ask(self.backend, request.what)

    def operate(self, method: str, args: tuple[Any, ...]) -> Job:
        yield from self._steps()
        if method == "settle":
            queue = self.store.queue(args[0])
            queue.settle(self._clock.now())
            self.store.keep(queue)
            return None
        of_drains = method in DRAINS
        return getattr(self.backend.extras.drains if of_drains else self.backend, method)(*args)

    def watch(self, name: str, blockers: Sequence[str], wake: Callable[[], None], claim: Claim) -> Watch:
        return self.backend.watch(name, blockers, wake, claim)

    def died(self, client: str) -> None:
        """The death goes unnoticed: the ttl decides."""

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
