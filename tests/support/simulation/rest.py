"""After the faults: everybody goes on, and what was promised for then is looked at (L3, L4, S11)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lockkit.store.queue import grantable
from lockkit.store.spi import POLL_CAP

if TYPE_CHECKING:
    from support.simulation.client import Worker
    from support.simulation.stores import StoredRow
    from support.simulation.world import World

__all__ = ["Rest"]

_LONGEST = 120.0
"""Seconds of virtual time in which everything must have come to rest."""
_MOST_STEPS = 2000
_HAND_OFF = 0.5
"""Seconds within which a free lock goes to a waiter whose wake arrives."""
_SLACK = 2.0
"""Beyond the poll cap, for a retry that was waiting when the faults stopped."""


class Rest:
    """Lets a world come to rest. Threads that hang go on hanging, so that nobody relies on them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._fits: dict[str, tuple[float, bool]] = {}
        """Since when a claim fits unheld, and whether a request made it fit: nobody announces an expiry."""
        self._turn = 0
        self._began = float("-inf") if world.faultless else world.clock.now() + POLL_CAP + _SLACK

    def come(self) -> None:
        """Run to the end."""
        world = self._world
        world.tell("-- no more faults")
        world.calm = True
        for client in world.clients:
            if client.paused:
                client.paused = False
            for worker in client.workers:
                worker.fuse = None
        self._settle(world)
        for worker in [worker for client in world.clients for worker in client.workers if worker.hung]:
            world.tell(f"{worker.label}: hangs no more")
            worker.hung = False
        self._settle(world)
        if len(world.violations) < world.patience:
            self._empty()

    def _settle(self, world: World) -> None:
        """Until nobody who can go on wants anything."""
        end = world.clock.now() + _LONGEST
        for _ in range(_MOST_STEPS):
            if len(world.violations) >= world.patience:
                return
            steps = world.plain()
            if steps:
                # Every one in turn: nothing that can go on is left standing for ever.
                self._turn += 1
                world.take(steps[self._turn % len(steps)][1])
                self._promptly()
                continue
            if not self._busy():
                return
            until = min(world.next_timer(), self._next_lapse())
            if until > end:
                break
            world.take(self._sleeper(until - world.clock.now()))
            self._promptly()
        for client in world.clients:
            if client.orphans.list.entries and not client.dead:
                world.violated("S11", f"{client.name} never removes {list(client.orphans.list.entries)}")
        stuck = [worker.label for client in world.clients for worker in client.workers if self._waits(worker)]
        if stuck or not world.violations:
            world.violated("L3", f"nothing moves any more, or for ever: {stuck} wait")

    def _lapse(self) -> None:
        """Somebody looks at every queue, which removes what has lapsed."""
        for name in self._world.names:
            self._world.operate("settle", name)

    def _sleeper(self, seconds: float) -> Callable[[], None]:
        return lambda: self._world.sleep(seconds)

    def _busy(self) -> bool:
        world = self._world
        for client in world.clients:
            if client.dead:
                continue
            if client.orphans.list.entries or any(hold.collected for hold in client.beats.holds()):
                return True
            if any(self._waits(worker) for worker in client.workers):
                return True
        return False

    def _waits(self, worker: Worker) -> bool:
        """Whether it wants to get on, and may expect to: nobody waits for a hung thread that holds."""
        if worker.client.dead or worker.hung or worker.state == "idle":
            return False
        return not worker.blocked_by(self._hung_names())

    def _hung_names(self) -> set[str]:
        """Names held by a hung thread, or by one that waits for such a name; its heartbeat rightly renews on.

        A process-bound grant that a hung thread has not read counts too: the store has no deadline for it.
        """
        alive = [worker for client in self._world.clients if not client.dead for worker in client.workers]
        hung = [worker for worker in alive if worker.hung]
        names = {
            attempt.terms.name
            for worker in hung
            for attempt in worker.attempts
            if attempt.sent and attempt.terms.process_bound
        }
        while hung:
            names |= {name for worker in hung for name in worker.held}
            alive = [worker for worker in alive if worker not in hung]
            hung = [worker for worker in alive if worker.blocked_by(names)]
        return names

    def _next_lapse(self) -> float:
        now = self._world.clock.now()
        rows = [row for name in self._world.names for row in self._world.store.rows(name)]
        return min((row.deadline for row in rows if row.deadline > now), default=float("inf"))

    def _promptly(self) -> None:
        """A lock that is free goes to a live waiter soon (L3)."""
        world = self._world
        now = world.clock.now()
        waiting = {
            attempt.claim.token: worker
            for client in world.clients
            if not client.dead
            for worker in client.workers
            for attempt in worker.attempts
            if attempt.claim is not None and not worker.hung
        }
        standing: set[str] = set()
        for name in world.names:
            rows: list[StoredRow] = [row for row in world.store.rows(name) if row.deadline > now]
            holding = [row.state in ("HELD", "LINGERING") for row in rows]
            for row in rows[: grantable(rows, holding)]:
                worker = waiting.get(row.token)
                if worker is None or row.state in ("HELD", "LINGERING"):
                    continue
                standing.add(row.token)
                since, announced = self._fits.setdefault(row.token, (now, world.executed))
                limit = POLL_CAP + _SLACK
                heard = worker.hears(row.token)
                if announced and heard and since > self._began:
                    limit = _HAND_OFF if worker.listens_for(row.token) else limit
                if now - since > limit:
                    self._fits[row.token] = (now, False)
                    late = "L3-hand-off" if limit == _HAND_OFF else "L3"
                    world.violated(late, f"{name} has been free for {row.token} for {now - since:.2f} s")
        self._fits = {token: seen for token, seen in self._fits.items() if token in standing}

    def _empty(self) -> None:
        """Nothing is left: no row, no orphan, no member of a heartbeat (L4)."""
        world = self._world
        for client in world.clients:
            if client.dead:
                continue
            if client.orphans.list.entries:
                world.violated("S11", f"{client.name} still has orphans: {list(client.orphans.list.entries)}")
            if client.beats.members:
                world.violated(
                    "L4-heartbeat", f"{client.name} still looks after {list(client.beats.members)}"
                )
        now = world.clock.now()
        for name in world.names:
            for row in world.store.rows(name):
                excused = world.by_the_dead(row.token) or world.is_waived(row.token)
                if row.deadline > now and row.state != "LINGERING" and not excused:
                    world.violated("L4", f"{name}: {row.token} is left, {row.state}")
        while world.store_has_rows():
            lapse = self._next_lapse()
            world.take(self._sleeper(0.001 if lapse == float("inf") else lapse - world.clock.now() + 0.001))
            world.take(self._lapse)
            if world.clock.now() > now + _LONGEST:
                world.violated("L1", "claims of the dead never lapse")
                return
