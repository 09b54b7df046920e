"""A simulated thread that takes several locks together, through the generators that ship."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from lockkit.errors import BackendUnavailable, LockkitError
from lockkit.protocol.attempt import Attempt
from lockkit.protocol.choosing import Choosing
from lockkit.protocol.composing import NoChooser, Steps, all_of, any_of, some_of
from lockkit.protocol.effects import CHOICES, Acquire, Choose, Judge, Keep, Pause, WaitForAny, WaitForWake
from lockkit.protocol.hold import Hold
from lockkit.protocol.releasing import Pipeline
from lockkit.protocol.running import ask_chooser
from lockkit.protocol.together import Candidate, Together, Tools
from lockkit.store.spi import Refused, Terms, Watch
from lockkit.values.choosers import Choice
from support.simulation.actors import Interrupt
from support.simulation.client import Client, Handle, Plan, Wait, Worker

if TYPE_CHECKING:
    from support.simulation.world import World

__all__ = ["Company"]


class _Fickle:
    """A chooser that changes its mind at random, and may hang. Once the world is calm, every member will do.

    The numbers that it draws depend only on the story so far, so that a schedule replays it.

    Attributes:
        bad: The members that it has found bad since: at its last choice, or after a grant.
    """

    every = 2.0

    def __init__(self, names: Sequence[str], world: World) -> None:
        self._names = names
        self._world = world
        self._asked = 0
        self.bad: set[str] = set()

    def hangs(self) -> bool:
        return self._chance(0.02)

    def choose(self, held: Sequence[str]) -> Choice:
        refused = {name: "not now" for name in self._names if self._chance(0.3)}
        order = [name for name in self._names if name not in refused and name not in held]
        self.bad = {*refused}
        return Choice(order[::-1] if self._chance(0.5) else order, refused)

    def judge(self, member: str) -> str | None:
        dirty = self._chance(0.2)
        self.bad = (self.bad | {member}) if dirty else (self.bad - {member})
        return "dirty" if dirty else None

    def _chance(self, of: float) -> bool:
        self._asked += 1
        drawn = Random(f"{len(self._world.story)} {self._asked}").random()
        return not self._world.calm and drawn < of


class _Place:
    """One attempt of an acquisition, waiting: its wait, and its watch."""

    def __init__(self, wait: Wait) -> None:
        self.wait = wait
        self.watch: Watch | None = None
        self.blockers: tuple[str, ...] | None = None

    def unwatch(self) -> None:
        if self.watch is not None:
            self.watch.close()
            self.watch = None


class Company(Worker):
    """One thread that acquires several locks together, holds them, and releases them, again and again."""

    def __init__(self, client: Client, number: int, plans: Sequence[Plan]) -> None:
        super().__init__(client, number, plans)
        self.plan = plans[0]
        self.together: Together | None = None
        self._begin_anew()

    def _begin_anew(self) -> None:
        """Forget everything of the acquisition before."""
        self.chooser: _Fickle | None = None
        self.holds: list[Hold] = []
        self._handles: list[Handle] = []
        self._places: dict[int, _Place] = {}
        self._asked: dict[Attempt, str] = {}
        self._kept: set[int] = set()
        self._pipelines: dict[Hold, tuple[Pipeline, set[str]]] = {}

    # -- acquire

    def acquire(self) -> None:
        world = self.client.world
        plan = self.plan = self.plans[self.count % len(self.plans)]
        self.count += 1
        self.began = world.clock.now()
        self._begin_anew()
        self.together = Together()
        self.state = "acquiring"
        names = ", ".join(terms.name for terms in plan.every)
        world.tell(f"{self.label}: {plan.take or 'all'} of {names}, timeout {plan.timeout}")
        self.begin(self._steps(plan, self.together))

    def _steps(self, plan: Plan, together: Together) -> Steps:
        world = self.client.world
        deadline = None if plan.timeout is None else self.began + plan.timeout
        waits = plan.timeout != 0

        def attempt(terms: Terms, *, wait: bool) -> Attempt:
            return Attempt(terms, deadline, wait, token=lambda: world.token(self.client.name))

        def attempts(every: Collection[Terms], *, wait: bool) -> list[Attempt]:
            return [attempt(terms, wait=wait) for terms in every]

        tools = Tools(world.store.capabilities, self.now, world.clock.wall, lambda: world.jitter)
        if plan.take in {"all", ""}:  # one lock is all of one
            ordered = sorted(plan.every, key=lambda terms: terms.name)
            return all_of(together, attempts(ordered, wait=waits), tools)
        if plan.take == "any":
            claims = attempts(plan.every, wait=True) if waits else []
            return any_of(together, attempts(plan.every, wait=False), claims, tools)
        gate = attempt(plan.terms, wait=waits)
        candidates = [
            Candidate(parts[0].name, attempts(parts, wait=False), attempts(parts, wait=True) if waits else [])
            for parts in plan.members
        ]
        members = NoChooser()
        if plan.chooses:
            names = [candidate.name for candidate in candidates]
            self.chooser = _Fickle(names, world)
            members = Choosing(self.chooser, "p", names, names, together, gate, self.now)
        return some_of(together, "p", gate, candidates, plan.count, tools, members)

    def hand_over(self) -> None:
        assert self.together is not None
        for hold in self.holds:
            handle = Handle()
            self._handles.append(handle)
            hold.levels = (handle.level,)
            self.client.world.checks.handed(hold)
        self.together.handed = True
        self.together = None
        self.state = "holding"
        self.keeps = self.client.world.clock.now() + 0.7 * (1 + self.client.world.clients.index(self.client))

    # -- release

    def start_release(self) -> None:
        """Release the one that was acquired last; the others follow, one by one."""
        self.began = self.client.world.clock.now()
        hold = self.holds[-1]
        self._handles[len(self.holds) - 1].level.left = True
        hold.leave()
        self.client.world.tell(f"{self.label}: releases {hold.claim.token}")
        self.go_on_with(hold)

    def releases(self, hold: Hold) -> bool:
        return self.state == "cut" and hold in self.holds

    def go_on_with(self, hold: Hold) -> None:
        if hold not in self._pipelines:
            self._pipelines[hold] = (Pipeline(hold, "normal", self.plan.hooks), set())
        self.client.beats.releasing[hold] = None
        self.hold = hold
        self.release, self.hooks_run = self._pipelines[hold]
        self.go_on_releasing()

    def collect(self) -> None:
        self.client.world.tell(f"{self.label}: its leases are collected")
        self._idle()
        self.client.deadlines.poke(self.client.world.clock.now())

    # -- for the invariants

    @property
    def attempts(self) -> list[Attempt]:
        return [] if self.together is None else [*self.together.parts]

    @property
    def held(self) -> set[str]:
        under_way = [one.hold for one in self.attempts if one.hold is not None and not one.hold.ended]
        return {hold.name for hold in (*self.holds, *under_way)} if self.state != "idle" else set()

    def stands_behind(self, token: str) -> bool:
        return any(hold.claim.token == token for hold in self.holds) or super().stands_behind(token)

    def blocked_by(self, names: Collection[str]) -> bool:
        if self.state != "acquiring":
            return False
        wanted = [terms.name in names for terms in self.plan.every]
        return all(wanted) if self.plan.take == "any" else any(wanted)

    def hears(self, token: str) -> bool:
        number = self._number(token)
        place = None if number is None else self._places.get(number)
        return place is not None and not place.wait.slept

    def listens_for(self, token: str) -> bool:
        effect = self.effect
        return isinstance(effect, WaitForAny) and isinstance(
            effect.waits.get(self._number(token) or 0), WaitForWake
        )

    def _number(self, token: str) -> int | None:
        tokens = [one.claim.token if one.claim is not None else "" for one in self.attempts]
        return tokens.index(token) if token in tokens else None

    # -- steps

    def ready(self) -> bool:
        effect = self.effect
        if not isinstance(effect, WaitForAny):
            return super().ready()
        return (
            bool(self._unprepared(effect))
            or bool(self._due(effect))
            or self._lost(effect)
            or (effect.until is not None and self.client.world.clock.now() >= effect.until)
        )

    def _lost(self, effect: WaitForAny) -> bool:
        return any(hold.lost_why for hold in effect.held)

    def _unprepared(self, effect: WaitForAny) -> list[int]:
        found = []
        for number, wait in effect.waits.items():
            place = self._places.get(number)
            if isinstance(wait, WaitForWake) and (
                place is None or place.wait.claim is not wait.claim or place.blockers != wait.blockers
            ):
                found.append(number)
        return found

    def _due(self, effect: WaitForAny) -> set[int]:
        now = self.client.world.clock.now()
        return {
            number
            for number, wait in effect.waits.items()
            if (wait.until is not None and now >= wait.until)
            or (isinstance(wait, WaitForWake) and self._places[number].wait.woken)
        }

    def next(self) -> float | None:
        effect = self.effect
        if isinstance(effect, WaitForAny):
            ends = [wait.until for wait in (*effect.waits.values(), effect) if wait.until is not None]
            return min(ends, default=None)
        return super().next()

    def step(self) -> None:
        effect = self.effect
        if isinstance(effect, WaitForAny):
            self._wait_for_any(effect)
        elif isinstance(effect, CHOICES):
            self._choose(effect)
        elif isinstance(effect, Keep):
            self.client.beats.hold(effect.hold)
            self.client.deadlines.poke(effect.hold.expires)
            self.answered(None)
        elif isinstance(effect, Acquire):
            attempt = next(one for one in self.attempts if one.claim is effect.claim)
            self.asked = self._asked.get(attempt, "")
            self.client.world.checks.asks(self, effect.claim)
            self._asked[attempt] = self.asked
            self.send(effect)
        else:
            super().step()

    def _choose(self, effect: Choose | Judge) -> None:
        """See :meth:`lockkit.drivers.together.ThreadTogether.choose`."""
        self._asked = {}  # a member that is named again has had its pause
        assert isinstance(effect.chooser, _Fickle)
        if effect.chooser.hangs():
            self.failed(Refused(BackendUnavailable("the chooser gave no answer in time")))
            return
        answer = ask_chooser(effect)
        self.client.world.tell(f"{self.label}: {type(effect).__name__} {answer}")
        self.answered(answer)

    def _wait_for_any(self, effect: WaitForAny) -> None:
        """See :class:`lockkit.drivers.together.WaitsTogether`."""
        for number, attempt in enumerate(self.attempts):
            if attempt.sent and attempt.hold is None and number not in effect.waits:
                self.client.world.violated("L4-forgotten", f"{self.label} waits, and forgets {attempt.claim}")
        store = self.client.world.store
        for number in set(self._places) - set(effect.waits):
            self._leave(self._places.pop(number))
        unprepared = self._unprepared(effect)
        if unprepared:
            number = unprepared[0]
            wait = effect.waits[number]
            assert isinstance(wait, WaitForWake)
            place = self._places.get(number)
            if place is None or place.wait.claim is not wait.claim:
                if place is not None:
                    place.unwatch()
                place = self._places[number] = _Place(Wait(self.client, wait.claim))
            place.unwatch()
            place.watch = store.watch(wait.claim.terms.name, wait.blockers, place.wait.hear, wait.claim)
            place.blockers = wait.blockers
            return
        due = self._due(effect)
        assert self.together is not None
        for number in due:
            if isinstance(effect.waits[number], Pause):
                self._asked.pop(self.together.attempts[number], None)
            elif number in self._places:
                self._places[number].wait.woken = self._places[number].wait.slept = False
        self.answered(due)

    def answered(self, result: Any) -> None:
        super().answered(result)
        self._granted()

    def failed(self, error: BaseException) -> None:
        super().failed(error)
        self._granted()

    def _granted(self) -> None:
        """A grant was read, and is about to be put into the heartbeat."""
        effect = self.effect
        if isinstance(effect, Keep) and id(effect.hold) not in self._kept:
            self._kept.add(id(effect.hold))
            hold = effect.hold
            self.client.world.tell(
                f"{self.label}: GRANTED {hold.claim.token}, fence {hold.fence}, "
                f"valid until {hold.expires:.2f}"
            )
            self.client.world.checks.granted(self, hold)

    # -- ends

    def finished(self, value: Any) -> None:
        world = self.client.world
        if self.state == "releasing":
            assert self.hold is not None
            world.tell(f"{self.label}: report {value.outcome} for {self.hold.claim.token}")
            world.checks.released(self, value)
            self.client.beats.over(self.hold)
            self.hold.reserved_by = 0
            self.holds.remove(self.hold)
            self.hold = self.release = None
            if not self.holds:
                self._idle()
            elif all(handle.level.open for handle in self._handles[: len(self.holds)]):
                self.start_release()
            else:  # it was cut short, and the background goes on with the others
                self.state = "cut"
                self.client.deadlines.poke(world.clock.now())
            return
        self._close_places()
        if value is None:
            world.tell(f"{self.label}: busy")
            self.together = None
            self._idle()
            return
        self.holds = [attempt.hold for attempt in value if attempt.hold is not None]
        bad = set() if self.chooser is None else {hold.name for hold in self.holds} & self.chooser.bad
        if bad:
            world.violated("CHOICE", f"{self.label} holds {bad}, which its chooser refused")
        self.state = "registered"

    def broke(self, error: BaseException) -> None:
        world = self.client.world
        if self.state == "releasing":
            super().broke(error)
            for handle in self._handles:
                handle.level.left = True
            return
        if not isinstance(error, LockkitError | Interrupt):
            world.violated("CRASH", f"{self.label} raised {error!r}")
        assert self.together is not None
        self.together.over = True
        self.client.take_back(self.together)
        world.tell(f"{self.label}: {type(error).__name__}")
        self._close_places()
        self.together = None
        self._idle()

    def _idle(self) -> None:
        super()._idle()
        self.holds, self._handles = [], []

    def _close_places(self) -> None:
        for place in self._places.values():
            self._leave(place)
        self._places = {}

    def _leave(self, place: _Place) -> None:
        place.unwatch()
        self.client.beats.forget(place.wait.waiter)
