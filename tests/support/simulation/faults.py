"""Faults: what may go wrong at any moment, and how likely it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lockkit.values.names import claim_id
from support.simulation.client import Client, Worker, listens

if TYPE_CHECKING:
    from support.simulation.world import World

__all__ = ["BLOWS", "LOST_DATA", "NO_FAULTS", "Blow", "Faults", "Step", "Troubles", "bind"]

Step = tuple[int, Callable[[], None]]
"""Something that can happen now: how likely, and what."""


def bind(function: Callable[..., None], *args: Any) -> Callable[[], None]:
    """A call for later."""
    return lambda: function(*args)


@dataclass(frozen=True, slots=True)
class Faults:
    """How likely what is; 0 for never. Plain steps weigh 4 to 8."""

    drop: int = 1
    delay: int = 1
    refuse: int = 1
    pause: int = 1
    hang: int = 1
    crash: int = 1
    cancel: int = 1
    evict: int = 1
    resize: int = 1
    deaf: int = 1
    collect: int = 1
    sleep: int = 1
    """Time passes although somebody could take a step."""
    budget: int = 12
    """How many of them in one run."""
    restart: int = 0
    """The server restarts empty; for a store that has a server, as the next two."""
    wipe: int = 0
    """A stranger flushes all of it."""
    unlearn: int = 0
    """The server forgets its scripts."""
    minute: int = 0
    """More than a minute passes at once: longer than a copy, a tombstone or a key without claims lasts."""
    drain: int = 0
    """The namespace is drained, or undrained, while acquires are under way; for a store with drains."""


@dataclass(frozen=True, slots=True)
class Blow:
    """A fault of a server.

    Attributes:
        loses_data: Nothing is promised any more for what stood there before; fences must rise all the same.
        hangs_up: Every connection breaks, with whatever is on it.
        takes: Seconds. Fences are drawn from the clock, so no loss of data may be over before it began.
    """

    loses_data: bool = False
    hangs_up: bool = False
    takes: float = 0.0


BLOWS = {
    "restarts empty": Blow(loses_data=True, hangs_up=True, takes=0.05),
    "is flushed by a stranger": Blow(loses_data=True, takes=0.001),
    "forgets its scripts": Blow(),
}
LOST_DATA = "lost data"
"""The names of the faults in which a store loses its data, for code that looks at a step."""


NO_FAULTS = Faults(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


class Troubles:
    """Lets faults strike a world, within its budget of them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._left = world.setup.faults.budget
        self._crashes = 0

    @property
    def left(self) -> bool:
        """Whether more may strike."""
        return self._left > 0

    def possible(self) -> list[Step]:
        """Every fault that can strike now, while the budget lasts."""
        if self._left <= 0:
            return []
        world, faults = self._world, self._world.setup.faults
        steps: list[Step] = []

        def fault(weight: int, what: Callable[[], None]) -> None:
            if weight:
                steps.append((weight, bind(self.spend, what)))

        for request in world.network:
            if request.caller is None or not listens(request):
                continue
            if request.reply is not None:
                fault(faults.drop, bind(world.fail, request, "reply lost"))
            elif request.job is None:
                fault(faults.drop, bind(world.fail, request, "request lost"))
                fault(faults.refuse, bind(world.fail, request, "refused"))
                if world.store.late_copies:
                    fault(faults.delay, bind(world.fail, request, "delayed"))
            else:
                fault(faults.drop, bind(world.fail, request, "cut short"))
        for client in world.clients:
            if client.dead:
                continue
            if not client.paused:
                fault(faults.pause, bind(self._pause, client))
                for worker in client.workers:
                    self._worker(worker, faults, fault)
            if not self._crashes:
                fault(faults.crash, bind(self._crash, client))
        self._operator(faults, fault)
        self._server(faults, fault)
        if not world.deaf:
            fault(faults.deaf, self._deafen)
        return steps

    def _worker(
        self, worker: Worker, faults: Faults, fault: Callable[[int, Callable[[], None]], None]
    ) -> None:
        if worker.hung or worker.state in ("idle", "cut"):
            return
        fault(faults.hang, bind(self._hang, worker))
        if worker.state == "holding":
            fault(faults.collect, worker.collect)
            return
        fault(faults.cancel, bind(self._interrupt, worker))
        if worker.fuse is None:
            fault(faults.cancel, bind(self._light_fuse, worker))

    def _operator(self, faults: Faults, fault: Callable[[int, Callable[[], None]], None]) -> None:
        for name in self._world.names:
            rows = self._world.store.rows(name)
            for row in rows[:2]:
                fault(faults.evict, bind(self._evict, name, row.token))
            if rows:
                for capacity in self._world.setup.capacities:
                    if capacity != rows[0].capacity:
                        fault(faults.resize, bind(self._resize, name, capacity))
        drains, states = (
            self._world.drains,
            [row.state for name in self._world.names for row in self._world.store.rows(name)],
        )
        if drains.marked:
            fault(2 * faults.drain, drains.end)
        elif states:  # an empty namespace shows little; waiters are what a drain turns away
            fault((8 if "WAITING" in states else 1) * faults.drain, drains.begin)

    def _server(self, faults: Faults, fault: Callable[[int, Callable[[], None]], None]) -> None:
        for weight, what in zip((faults.restart, faults.wipe, faults.unlearn), BLOWS, strict=True):
            fault(weight, bind(self._world.befall, what))

    def spend(self, what: Callable[[], None]) -> None:
        """Let a fault strike, at the cost of the budget."""
        self._left -= 1
        self._world.faultless = False
        what()

    def _pause(self, client: Client) -> None:
        self._world.tell(f"{client.name}: stopped (SIGSTOP)")
        client.paused = True

    def resume(self, client: Client) -> None:
        """A stopped client goes on."""
        self._world.tell(f"{client.name}: goes on (SIGCONT)")
        client.paused = False

    def _hang(self, worker: Worker) -> None:
        self._world.tell(f"{worker.label}: hangs; its heartbeat runs")
        worker.hung = True

    def wake_up(self, worker: Worker) -> None:
        """A thread that hung goes on."""
        self._world.tell(f"{worker.label}: hangs no more")
        worker.hung = False

    def _crash(self, client: Client) -> None:
        self._world.tell(f"{client.name}: killed (SIGKILL)")
        self._crashes += 1
        client.dead, client.paused = True, False
        for request in [request for request in self._world.network if request.client == client.name]:
            self._world.cut(request)
        self._world.store.died(client.name)

    def _interrupt(self, worker: Worker) -> None:
        request = worker.request
        if request is not None:
            self._world.cut(request)
        worker.interrupt()

    def _light_fuse(self, worker: Worker) -> None:
        worker.fuse = 0

    def _deafen(self) -> None:
        self._world.tell("the next wake will be lost")
        self._world.deaf = 1

    def _evict(self, name: str, token: str) -> None:
        self._world.operating = "evict"
        self._world.operate("evict", name, claim_id(token), 1.0)
        self._world.tell(f"operator: evict {token}")

    def _resize(self, name: str, capacity: int) -> None:
        self._world.operating = "resize"
        self._world.operate("resize", name, capacity, 1.0)
        self._world.tell(f"operator: resize {name} to {capacity}")
