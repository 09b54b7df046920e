"""The simulated world: clients, requests under way, one store, one clock; a schedule decides each step.

A schedule is a string of bytes. Each byte picks one of the possible steps; 0 picks the plainest one, so
that a shrunk schedule shows a plain story. After the last byte the faults stop, everybody who can go on
goes on, and the liveness promises are checked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lockkit.protocol import effects
from lockkit.store.spi import Claim, Terms
from support.simulation.actors import Actor
from support.simulation.checks import Checks, Violation
from support.simulation.client import Client, Plan, listens
from support.simulation.clock import VirtualClock
from support.simulation.drains import Drains
from support.simulation.faults import BLOWS, LOST_DATA, NO_FAULTS, Faults, Step, Troubles, bind
from support.simulation.network import Job, Reply, Request, answer_text, lost
from support.simulation.stores import Atomic, ModelStore

__all__ = ["NO_FAULTS", "Faults", "Setup", "World"]


@dataclass(frozen=True, slots=True)
class Setup:
    """The setup of a world: plans for each worker of each client."""

    clients: tuple[tuple[tuple[Plan, ...], ...], ...]
    store: Callable[[VirtualClock], ModelStore] = Atomic
    faults: Faults = field(default_factory=Faults)
    label: str = ""
    capacities: tuple[int, ...] = (1, 2)
    """The capacities that a resize may choose."""


class World:
    """One run.

    Attributes:
        story: One line a step: when, who, what.
        violations: Promises broken.
        executing: The request that is being executed in this step.
        executed: Whether the last step executed a request.
        operating: What this step did without a request: evict, evict now, resize, turn away, lost data.
    """

    jitter = 0.5

    def __init__(self, setup: Setup, *, patience: int = 1) -> None:
        self.setup = setup
        self.clock = VirtualClock()
        self.store = setup.store(self.clock)
        self.story: list[str] = []
        self.violations: list[Violation] = []
        self.network: list[Request] = []
        self.executing: Request | None = None
        self.executed = False
        self.operating = ""
        self.steps = 0
        self.terms: dict[str, Terms] = {}
        self.patience = patience
        self.calm = False
        self.faultless = True
        plans = [plan for client in setup.clients for worker in client for plan in worker]
        self.names = sorted({terms.name for plan in plans for terms in plan.every})
        self.checks = Checks(self)
        self.troubles = Troubles(self)
        self.drains = Drains(self)
        self.deaf = 0
        self._serial = 0
        self._tokens: dict[str, int] = {}
        self._owner: dict[str, Client] = {}
        self._claims: dict[int, tuple[Claim, int]] = {}
        self._created: set[str] = set()
        self._removed: set[str] = set()
        self._waived: set[str] = set()
        self.clients = [Client(self, chr(65 + at), plans) for at, plans in enumerate(setup.clients)]

    # -- what the actors ask of the world

    def tell(self, line: str) -> None:
        """Add a line to the story."""
        self.story.append(f"{self.clock.now():8.2f}  {line}")

    def violated(self, name: str, what: str) -> None:
        """Note a broken promise."""
        self.tell(f"!! {name}: {what}")
        self.violations.append(Violation(name, what, len(self.story)))

    def token(self, client: str) -> str:
        """A fresh token that a reader can tell apart."""
        count = self._tokens[client] = self._tokens.get(client, 0) + 1
        return f"{client}-{count}"

    def acquisition(self, claim: Claim) -> int:
        """The number of the acquisition that a claim object belongs to."""
        known = self._claims.get(id(claim))
        if known is None:
            known = self._claims[id(claim)] = (claim, len(self._claims) + 1)
        return known[1]

    def wake_is_lost(self) -> bool:
        """Whether this wake does not arrive."""
        if self.deaf > 0:
            self.deaf -= 1
            self.tell("a wake is lost")
            return True
        return False

    def send(self, actor: Actor, what: effects.Request) -> Request:
        """Put a request on its way."""
        self._serial += 1
        client = actor.client
        request = Request(self._serial, client.name, actor.label, what, self.clock.now(), caller=actor)
        for claim in request.claims:
            self._owner.setdefault(claim.token, client)
            self.terms.setdefault(claim.token, claim.terms)
            request.acquisition[claim.token] = self.acquisition(claim)  # type: ignore[index]
        if request.creates:
            token = request.claims[0].token
            request.replay = token in self._created
            self._created.add(token)
        self.tell(f"{actor.label}: sends {request}")
        self.checks.sent(client, request)
        self.network.append(request)
        self.store.sent(request)
        return request

    # -- what the invariants ask of the world

    def speaks_for(self, request: Request | None, token: str) -> int:
        """The acquisition for which a request names a token; 0 if it does not."""
        return request.acquisition.get(token, 0) if request is not None else 0

    def is_dead(self, token: str) -> bool:
        """Whether a store that sees death may remove it."""
        owner = self._owner.get(token)
        return self.store.sees_death and owner is not None and owner.dead

    def is_waived(self, token: str) -> bool:
        """Whether nothing is promised for it any more: the store lost its data when it was about."""
        return token in self._waived

    def removed_in_this_step(self, token: str) -> bool:
        """Whether it is gone, though the invariants have not looked yet."""
        return token in self._removed

    def by_the_dead(self, token: str) -> bool:
        """Whether it is a claim of a client that is dead."""
        return self._owner[token].dead

    def store_has_rows(self) -> bool:
        """Whether anything is in any queue."""
        return any(self.store.rows(name) for name in self.names)

    def stood_behind(self, token: str) -> bool:
        """Whether the client of a claim stands behind it, or will remove it; always true of the dead."""
        client = self._owner[token]
        if client.dead or client.looks_after(token):
            return True
        return any(worker.stands_behind(token) for worker in client.workers)

    # -- running

    def run(self, schedule: bytes) -> None:
        """Follow a schedule, then let things come to rest."""
        try:
            self._run(schedule)
        finally:
            self.store.close()

    def _run(self, schedule: bytes) -> None:
        for choice in schedule:
            self.step(choice)
            if len(self.violations) >= self.patience:
                return
        from support.simulation.rest import Rest

        Rest(self).come()

    def step(self, choice: int) -> None:
        """Take the step that a byte picks."""
        steps = self.possible()
        total = sum(weight for weight, _ in steps)
        at = choice * total >> 8
        for weight, step in steps:
            at -= weight
            if at < 0:
                self.take(step)
                return

    def take(self, step: Callable[[], None]) -> None:
        """Take one step and look at the store."""
        self.steps += 1
        step()
        self.checks.look()
        self.executed = self.executing is not None
        self.executing = None
        self.operating = ""

    def possible(self) -> list[Step]:
        """Every step possible now, the plainest first."""
        steps = self.plain()
        faults = self.setup.faults
        now = self.clock.now()
        timer = self.next_timer()
        if not steps or faults.sleep:
            if now < timer < float("inf"):
                steps.append((2, lambda: self.sleep(timer - now)))
            if self.troubles.left and faults.sleep:
                steps.extend((faults.sleep, bind(self.sleep, seconds)) for seconds in (0.3, 2.0, 7.0))
        if self.troubles.left and faults.minute:
            steps.append((faults.minute, bind(self.troubles.spend, bind(self.sleep, 70.0))))
        for client in self.clients:
            if not client.dead:
                steps.extend(
                    (2, worker.acquire)
                    for worker in client.workers
                    if worker.free() and worker.state == "idle"
                )
        for client in self.clients:
            if client.paused:
                steps.append((2, bind(self.troubles.resume, client)))
            steps.extend((1, bind(self.troubles.wake_up, worker)) for worker in client.workers if worker.hung)
        steps.extend(self.troubles.possible())
        return steps or [(1, lambda: self.sleep(1.0))]

    def plain(self) -> list[Step]:
        """Steps that are no fault and need no time."""
        steps: list[Step] = []
        for request in self.network:
            if request.reply is not None:
                if listens(request):
                    steps.append((8, bind(self._reply, request)))
            elif request.caller is not None or self.calm:
                steps.append((6, bind(self._execute, request)))
            else:
                steps.append((1, bind(self._execute, request)))
        now = self.clock.now()
        for client in self.clients:
            if client.paused or client.dead:
                continue
            for worker in client.workers:
                if worker.hung:
                    continue
                if worker.ready():
                    steps.append((6, worker.step))
                elif worker.state == "holding" and (not self.calm or worker.keeps <= now):
                    steps.append((2, worker.start_release))
            if client.heartbeat.next() <= now:
                steps.append((4, client.heartbeat.beat))
            if client.deadlines.next() <= now:
                steps.append((4, client.deadlines.look))
            removers = (client.orphans, *client.orphans.helpers)
            steps.extend((4, remover.remove) for remover in removers if remover.next() <= now)
        if self.drains.step is not None:
            steps.append((3, self.drains.step))
        return steps

    def next_timer(self) -> float:
        """When somebody wants to go on by itself; infinity if nobody does."""
        ends = [float("inf")]
        for client in self.clients:
            if client.paused or client.dead:
                continue
            ends.append(client.heartbeat.next())
            ends.append(client.orphans.next())
            ends.append(client.deadlines.next())
            ends.extend(
                end for worker in client.workers if not worker.hung and (end := worker.next()) is not None
            )
        return min(ends)

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.forward(seconds)

    # -- requests

    def _execute(self, request: Request) -> None:
        """Run the next statement of a request."""
        self.executing = request
        if request.job is None:
            request.job = self.store.job(request)
        try:
            label = next(request.job)
        except StopIteration as stop:
            self.tell(f"store: {request} -> {answer_text(stop.value)}")
            self._answered(request, Reply(stop.value))
        except Exception as error:  # Refused and Unknown are answers
            self.checks.refused(request, error)
            self.tell(f"store: {request} -> {error!r}")
            self._answered(request, Reply(error=error))
        else:
            self.tell(f"store: {request}: {label}")

    def _answered(self, request: Request, reply: Reply) -> None:
        request.job = None
        if request.caller is None:
            self.network.remove(request)
        else:
            request.reply = reply

    def _reply(self, request: Request) -> None:
        """The answer arrives."""
        assert request.reply is not None
        assert request.caller is not None
        self.checks.look()
        self.executing = None
        reply = self.store.read(request, request.reply)
        request.reply = None
        if reply is None:
            self.tell(f"{request.actor}: sends {request} again, more of it")
            return
        self.network.remove(request)
        reply.tell(request.caller)

    def fail(self, request: Request, how: str) -> None:
        """No answer, or a refusal; a delayed request stays under way as a late copy."""
        caller = request.caller
        assert caller is not None
        self.tell(f"{request}: {how}")
        if how == "delayed":
            request.caller = None
        else:
            self.network.remove(request)
        self.store.ended(request, how).tell(caller)

    def cut(self, request: Request) -> None:
        """Cut a request off from its caller, which was interrupted or died."""
        request.caller = None
        if request.reply is not None or not self.store.late_copies:
            self.network.remove(request)
        self.store.ended(request, "interrupted")

    def befall(self, what: str) -> None:
        """Something happens to the server; see :data:`~support.simulation.faults.BLOWS`."""
        blow = BLOWS[what]
        self.tell(f"the server {what}")
        if blow.hangs_up:
            for request in list(self.network):
                if request.caller is None:
                    self.network.remove(request)
                    self.store.forget(request)
                elif request.reply is None:
                    request.reply = Reply(error=lost(f"the server {what}"))
        if blow.loses_data:
            self.operating = LOST_DATA
            self._waived |= self.terms.keys()
            self.clock.forward(blow.takes)
        self.store.befall(what)

    def operate(self, method: str, *args: Any) -> Any:
        """Execute an operator's request in one go."""
        job: Job = self.store.operate(method, args)
        while True:
            try:
                next(job)
            except StopIteration as stop:
                return stop.value
