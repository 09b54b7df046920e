"""One simulated client: a process with worker threads, a heartbeat and an orphan list."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lockkit.errors import LockkitError
from lockkit.facts import HookReport, LayerOutcome
from lockkit.lib.leaving import Level
from lockkit.protocol.acquiring import acquiring, taking_back
from lockkit.protocol.attempt import Attempt, UnderWay
from lockkit.protocol.beating import Beats
from lockkit.protocol.effects import (
    Abandon,
    Acquire,
    AwaitHook,
    Effect,
    EmergencyRelease,
    GoOn,
    Inspect,
    Lost,
    Notify,
    Orphan,
    Pause,
    RecordFailure,
    Release,
    Renew,
    StartHook,
    WaitForWake,
    Withdraw,
)
from lockkit.protocol.hold import Hold
from lockkit.protocol.releasing import Pipeline, releasing
from lockkit.store.spi import REQUEST_TIMEOUT, Claim, Terms, Watch
from support.simulation.actors import Actor, Interrupt
from support.simulation.background import Deadlines, Heartbeat, Orphans
from support.simulation.network import Request

if TYPE_CHECKING:
    from support.simulation.world import World

__all__ = ["Client", "Handle", "Plan", "Wait", "Worker", "listens"]


class Handle:
    """The user's handle of a hold; its collection is noticed."""

    __slots__ = ("__weakref__", "level")
    callbacks = ()
    asked_callbacks = ()
    last_calls = ()

    def __init__(self) -> None:
        self.level = Level(self)


@dataclass(frozen=True, slots=True)
class Plan:
    """One acquisition that a worker will make.

    Attributes:
        timeout: Seconds; None to wait for ever; 0 is a try.
        take: How several locks are taken: ``all``, ``any``, ``pool`` (``terms``: its gate); "" for one.
        others: The terms of the other locks, or of the pool's members.
        count: The number of members.
        around: For each of the pool's members, the terms of the claim in the queue of the member
            around it; None for those within none.
        chooses: Whether the request has a chooser, which changes its mind.
    """

    terms: Terms
    timeout: float | None = None
    hooks: tuple[str, ...] = ("hook",)
    auto_renew: bool = True
    take: str = ""
    others: tuple[Terms, ...] = ()
    count: int = 1
    around: tuple[Terms | None, ...] = ()
    chooses: bool = False

    @property
    def every(self) -> tuple[Terms, ...]:
        """The terms of every lock."""
        return (self.terms, *self.others, *(terms for terms in self.around if terms is not None))

    @property
    def members(self) -> tuple[tuple[Terms, ...], ...]:
        """The terms of the claims that hold each member of the pool together."""
        around = self.around or (None,) * len(self.others)
        return tuple(
            (own,) if outer is None else (own, outer) for own, outer in zip(self.others, around, strict=True)
        )


class Wait:
    """The wait of a thread for its claim.

    Attributes:
        woken: The thread is to ask again.
        slept: A wake of its watch was lost; only the poll cap helps.
    """

    def __init__(self, client: Client, claim: Claim) -> None:
        self.claim = claim
        self.woken = self.slept = False
        self.waiter = client.beats.waiter(claim, self.ring)
        self._world = client.world

    def ring(self) -> None:
        """The heartbeat wakes it."""
        self.woken = True

    def hear(self) -> None:
        """The watch wakes it, unless that is lost."""
        if self._world.wake_is_lost():
            self.slept = True
        else:
            self.woken = True


class Client:
    """One process."""

    def __init__(self, world: World, name: str, plans: Sequence[Sequence[Plan]]) -> None:
        self.world = world
        self.name = name
        self.paused = False
        self.dead = False
        self.beats = Beats(
            world.clock.now,
            lambda: world.jitter,
            world.store.capabilities.waiter_deadline,
            REQUEST_TIMEOUT,
            lambda _: None,
        )
        self.heartbeat = Heartbeat(self)
        self.deadlines = Deadlines(self)
        self.orphans = Orphans(self)
        self.withdrawn: set[int] = set()
        """Acquisitions that nothing may renew any more."""
        from support.simulation.company import Company  # late: it is a worker itself

        self.workers = [
            (Company if any(one.take for one in plan) else Worker)(self, number, plan)
            for number, plan in enumerate(plans)
        ]

    def background(self, effect: Effect) -> None:
        """Perform an effect that never waits, in any thread."""
        world = self.world
        match effect:
            case Withdraw(claim):
                self.withdraw(claim)
                world.tell(f"{self.name}: withdraws {claim.token}")
            case Orphan(claim):
                self.orphans.list.add(effect)
                world.tell(f"{self.name}: orphan {claim.token}, not before {effect.after:.2f}")
            case Lost(hold, why):
                world.tell(f"{self.name}: LOST {hold.claim.token} ({why})")
                world.checks.told_lost(hold)
            case Notify(what):
                world.checks.notified(what)
            case RecordFailure():
                world.tell(f"{self.name}: writes a critical-failure record")
            case GoOn(hold):
                self.go_on(hold)
            case _:
                world.violated("CRASH", f"no driver for {effect!r} here")

    def withdraw(self, claim: Claim) -> None:
        """Take a claim out of the heartbeat."""
        self.beats.withdraw(claim.token)
        self.withdrawn.add(self.world.acquisition(claim))

    def go_on(self, hold: Hold) -> None:
        """See :meth:`lockkit.drivers.releases.Releases.go_on`."""
        if hold.report is None and not hold.reserved_by:
            hold.leave()
            for worker in self.workers:
                if worker.releases(hold):
                    worker.go_on_with(hold)

    def looks_after(self, token: str) -> bool:
        """Whether the background will see to a claim."""
        return isinstance(self.beats.members.get(token), Hold) or token in self.orphans.list.entries

    def take_back(self, attempt: UnderWay) -> None:
        """See :meth:`lockkit.drivers.threads.Driver.take_back`."""
        for effect in taking_back(attempt):
            self.background(effect)


class Worker(Actor):
    """One thread that acquires, holds and releases, again and again.

    Attributes:
        state: idle, acquiring, granted (read, not registered), registered (no handle yet), holding,
            releasing, cut (an interrupted release, until the background goes on with it: on this thread).
        hung: The thread stands still, its client's background threads run.
    """

    def __init__(self, client: Client, number: int, plans: Sequence[Plan]) -> None:
        super().__init__(client, f"{client.name}{number}")
        self.state = "idle"
        self.hung = False
        self.plans = plans
        self.count = 0
        self.attempt: Attempt | None = None
        self.hold: Hold | None = None
        self.release: Pipeline | None = None
        self.wait: Wait | None = None
        self.hooks_run: set[str] = set()
        self.began = 0.0
        self.keeps = 0.0
        """Until when it keeps what it holds, if nobody hurries it."""
        self.asked = ""
        """The token that was last asked for, if there was no pause since."""
        self._handle: Handle | None = None
        self._watch: Watch | None = None
        self._blockers: tuple[str, ...] | None = None

    # -- acquire

    def acquire(self) -> None:
        """Start the next acquisition."""
        world = self.client.world
        plan = self.plans[self.count % len(self.plans)]
        self.count += 1
        self.began = world.clock.now()
        deadline = None if plan.timeout is None else self.began + plan.timeout
        self.attempt = attempt = Attempt(
            plan.terms,
            deadline,
            plan.timeout != 0,
            auto_renew=plan.auto_renew,
            token=lambda: world.token(self.client.name),
        )
        self.state = "acquiring"
        self.asked = ""
        how = "try" if plan.timeout == 0 else f"acquire, timeout {plan.timeout}"
        world.tell(
            f"{self.label}: {how} {plan.terms.name} (weight {plan.terms.weight} of {plan.terms.capacity})"
        )
        self.begin(
            acquiring(attempt, world.store.capabilities, self.now, world.clock.wall, lambda: world.jitter)
        )

    def register(self) -> None:
        """The heartbeat takes charge of what was granted."""
        assert self.hold is not None
        self.client.beats.hold(self.hold)
        self.client.deadlines.poke(self.hold.expires)
        self._close_waits()
        self.state = "registered"

    def hand_over(self) -> None:
        """The caller has its handle."""
        assert self.attempt is not None
        assert self.hold is not None
        self._handle = Handle()
        self.hold.levels = (self._handle.level,)
        self.client.world.checks.handed(self.hold)
        self.attempt.sent = False
        self.attempt = None
        self.state = "holding"
        # Unlike for each, so that holders of one lock leave one by one.
        self.keeps = self.client.world.clock.now() + 0.7 * (1 + self.client.world.clients.index(self.client))

    # -- release

    def start_release(self) -> None:
        assert self.hold is not None
        assert self._handle is not None
        plan = self.plans[(self.count - 1) % len(self.plans)]
        self.release = Pipeline(self.hold, "normal", plan.hooks)
        self.hooks_run = set()
        self.began = self.client.world.clock.now()
        self.client.world.tell(f"{self.label}: releases {self.hold.claim.token}")
        self._handle.level.left = True
        self.hold.leave()
        self.client.beats.releasing[self.hold] = None
        self.go_on_releasing()

    def go_on_releasing(self) -> None:
        """Take the release to its end, from wherever it is."""
        assert self.hold is not None
        assert self.release is not None
        self.state = "releasing"
        self.hold.reserved_by = 1
        self.release.interrupts = []
        self.begin(releasing(self.release, self.now))

    def releases(self, hold: Hold) -> bool:
        """Whether a release that was cut short is gone on with here."""
        return self.hold is hold

    def go_on_with(self, hold: Hold) -> None:  # noqa: ARG002 (it has only one)
        """Go on with the release of a hold."""
        self.go_on_releasing()

    # -- for the invariants

    @property
    def attempts(self) -> list[Attempt]:
        """The attempts that are under way."""
        return [] if self.attempt is None else [self.attempt]

    @property
    def held(self) -> set[str]:
        """The names of what it holds."""
        return set() if self.hold is None else {self.hold.name}

    def stands_behind(self, token: str) -> bool:
        """Whether it holds a claim, or is about to remove it."""
        if self.hold is not None and self.hold.claim.token == token:
            return True
        return any(
            attempt.sent and attempt.claim is not None and attempt.claim.token == token
            for attempt in self.attempts
        )

    def blocked_by(self, names: Collection[str]) -> bool:
        """Whether it can get on only if one of these names comes free."""
        return self.attempt is not None and self.attempt.terms.name in names

    def hears(self, token: str) -> bool:  # noqa: ARG002 (it has only one)
        """Whether a wake for a claim arrives."""
        return self.wait is not None and not self.wait.slept

    def listens_for(self, token: str) -> bool:  # noqa: ARG002 (it has only one)
        """Whether it waits for nothing but a wake for a claim."""
        return isinstance(self.effect, WaitForWake)

    def collect(self) -> None:
        """The handle is garbage-collected."""
        assert self.hold is not None
        self.client.world.tell(f"{self.label}: the lease of {self.hold.claim.token} is collected")
        self._idle()
        self.client.deadlines.poke(self.client.world.clock.now())

    # -- steps

    def free(self) -> bool:
        """Whether this thread can run at all."""
        return not (self.client.paused or self.client.dead or self.hung)

    def ready(self) -> bool:
        """Whether it can take a step of its own now."""
        effect = self.effect
        if effect is None:
            return self.state in ("granted", "registered")
        if self.request is not None:
            return False
        now = self.client.world.clock.now()
        if isinstance(effect, Pause):
            return now >= effect.until
        if isinstance(effect, WaitForWake):
            wait = self.wait
            if wait is None or wait.claim is not effect.claim or self._blockers != effect.blockers:
                return True
            return wait.woken or (effect.until is not None and now >= effect.until)
        return True

    def next(self) -> float | None:
        """When it wants to go on by itself; None if it waits for something else."""
        if isinstance(self.effect, Pause | WaitForWake):
            return self.effect.until
        if self.state == "holding" and self.client.world.calm:
            return self.keeps
        return None

    def step(self) -> None:
        """Perform the effect, or what the driver does after a grant."""
        effect = self.effect
        match effect:
            case None if self.state == "granted":
                self.register()
            case None:
                self.hand_over()
            case Acquire(claim):
                self.client.world.checks.asks(self, claim)
                self.send(effect)
            case Renew() | Release() | Abandon() | EmergencyRelease() | Inspect():
                self.send(effect)
            case Pause():
                self.asked = ""
                self.answered(None)
            case WaitForWake():
                self._wait(effect)
            case StartHook(plugin):
                self.client.world.tell(f"{self.label}: cleanup hook {plugin}")
                self.client.world.checks.hook_runs(self, plugin)
                self.hooks_run.add(plugin)
                self.answered(None)
            case AwaitHook(plugin):
                outcome: LayerOutcome = "DONE" if plugin in self.hooks_run else "UNKNOWN"
                self.answered(HookReport(plugin, outcome))
            case _:
                self.client.background(effect)
                self.answered(None)

    def _wait(self, effect: WaitForWake) -> None:
        """See :meth:`lockkit.drivers.waits.Waits.wait`."""
        store = self.client.world.store
        wait = self.wait
        if wait is None or wait.claim is not effect.claim:
            wait = self.wait = Wait(self.client, effect.claim)
            self._blockers = None
        if effect.blockers != self._blockers:
            self._unwatch()
            self._watch = store.watch(effect.claim.terms.name, effect.blockers, wait.hear, effect.claim)
            self._blockers = effect.blockers
            return
        wait.woken = wait.slept = False
        self.answered(None)

    def interrupt(self) -> None:
        """A Ctrl-C hits this thread at the effect it is at."""
        self.client.world.tell(f"{self.label}: Ctrl-C while {self.state}, at {type(self.effect).__name__}")
        if self.effect is None:
            self.broke(Interrupt())
            return
        request = self.request
        if request is not None:
            request.caller = None
            self.request = None
        self.failed(Interrupt())

    def finished(self, value: Any) -> None:
        world = self.client.world
        if self.state == "releasing":
            assert self.release is not None
            world.tell(f"{self.label}: report {value.outcome} for {self.release.hold.claim.token}")
            world.checks.released(self, value)
            self.client.beats.over(self.release.hold)
            self._idle()
            return
        assert self.attempt is not None
        if value is None:
            world.tell(f"{self.label}: busy")
            self._close_waits()
            self._idle()
            return
        self.hold = self.attempt.hold = value
        world.tell(
            f"{self.label}: GRANTED {value.claim.token}, fence {value.fence}, valid until {value.expires:.2f}"
        )
        world.checks.granted(self, value)
        self.state = "granted"

    def broke(self, error: BaseException) -> None:
        world = self.client.world
        if not isinstance(error, LockkitError | Interrupt):
            world.violated("CRASH", f"{self.label} raised {error!r}")
        if self.state == "releasing":
            assert self.hold is not None
            world.tell(f"{self.label}: its release is cut short")
            self.hold.reserved_by = 0
            self.state = "cut"
            self.client.deadlines.poke(world.clock.now())
            return
        assert self.attempt is not None
        self.client.take_back(self.attempt)
        world.tell(f"{self.label}: {type(error).__name__}")
        self._close_waits()
        world.checks.acquire_failed(self, error)
        self._idle()

    def _idle(self) -> None:
        self.state, self.attempt, self.hold, self.release = "idle", None, None, None
        self._handle = None
        self.fuse = None

    def _close_waits(self) -> None:
        self._unwatch()
        if self.wait is not None:
            self.client.beats.forget(self.wait.waiter)
        self.wait, self._blockers = None, None

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None


def listens(request: Request) -> bool:
    """Whether whoever waits for an answer can take one in now."""
    caller = request.caller
    if isinstance(caller, Worker):
        return caller.free()
    return isinstance(caller, Actor) and not (caller.client.paused or caller.client.dead)
