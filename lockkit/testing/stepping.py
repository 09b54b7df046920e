"""The protocol driven by hand: a test performs the steps of a client one by one, without threads."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from lockkit.facts import Alert, Event, HookReport, ReleaseReport
from lockkit.lib.clock import Clock
from lockkit.lib.leaving import Level
from lockkit.protocol.acquiring import acquiring, taking_back
from lockkit.protocol.attempt import Attempt
from lockkit.protocol.effects import (
    REQUESTS,
    AwaitHook,
    Effect,
    Lost,
    Notify,
    Orphan,
    RecordFailure,
    WaitForWake,
)
from lockkit.protocol.hold import Hold
from lockkit.protocol.releasing import Pipeline, releasing
from lockkit.protocol.renewing import losing, renewing
from lockkit.protocol.running import Running, ask, to_its_end
from lockkit.store.spi import REQUEST_TIMEOUT, Backend, Claim, Refused, Terms, Unknown, Watch
from lockkit.values.names import claim_id

__all__ = ["Pending", "State", "Stepper"]


class _Handle:
    """The handle of a user who keeps it."""

    callbacks = asked_callbacks = last_calls = ()

    def __init__(self) -> None:
        self.level = Level(self)


_IN_HAND = _Handle()
T = TypeVar("T")
State = Literal["waiting", "paused", "held", "busy", "failed", "cancelled"]
_FEW = 100


@dataclass(slots=True)
class Stepper:
    """One client, driven by hand.

    Attributes:
        orphans: The claims to remove in the background; see :meth:`remove_orphans`.
        told: The events and alerts so far.
        lost: The holds that were declared lost, with an entry for each time.
        failures: The records of critical failures so far.
        hook: The cleanup hook: takes the name of a plugin, and returns the report.
    """

    backend: Backend
    clock: Clock
    orphans: list[Orphan] = field(default_factory=list)
    told: list[Event | Alert] = field(default_factory=list)
    lost: list[Hold] = field(default_factory=list)
    failures: list[object] = field(default_factory=list)
    hook: Callable[[str], HookReport] = lambda plugin: HookReport(plugin, "DONE")

    def acquire(self, terms: Terms, timeout: float | None = None, *, wait: bool = True) -> Pending:
        """Begin to acquire, and go on until it has to wait."""
        deadline = None if timeout is None else self.clock.now() + timeout
        pending = Pending(self, Attempt(terms, deadline, wait))
        pending.step()
        return pending

    def release(self, hold: Hold, reason: str = "normal", plugins: Sequence[str] = ()) -> ReleaseReport:
        """Release a hold."""
        return self.drive(releasing(Pipeline(hold, reason, plugins), self.clock.now))

    def beat(self, members: Sequence[Pending]) -> bool:
        """Send one batch of renewals. Returns whether it was answered."""
        claims = [pending if pending.hold is None else pending.hold for pending in members]
        return self.drive(renewing(claims, self.clock.now, REQUEST_TIMEOUT, lambda _: None))

    def notice(self, hold: Hold) -> bool:
        """Declare the hold lost if its time has run out. Returns whether it has."""
        why = hold.overdue(self.clock.now())
        if why:
            self.drive(losing(hold, why))
        return bool(why)

    def remove_orphans(self, *, due_only: bool = True) -> int:
        """Try to remove the orphans that are due; unknown outcomes stay. Returns how many were removed."""
        now, kept, removed = self.clock.now(), list[Orphan](), 0
        for orphan in self.orphans:
            try:
                if due_only and orphan.after > now:
                    kept.append(orphan)
                    continue
                ask(self.backend, orphan.request(REQUEST_TIMEOUT))
                removed += 1
            except (Refused, Unknown):
                kept.append(orphan)
        self.orphans[:] = kept
        return removed

    def drive(self, generator: Generator[Effect, Any, T]) -> T:
        """Perform the effects of a generator that does not wait. A pause takes no time."""
        return to_its_end(generator, self.backend, self.perform)

    def perform(self, effect: Effect) -> object:
        """Perform one effect."""
        if isinstance(effect, REQUESTS):
            return ask(self.backend, effect)
        match effect:
            case Orphan():
                self.orphans.append(effect)
            case Notify(what):
                self.told.append(what)
            case Lost(hold, _):
                self.lost.append(hold)
            case RecordFailure(record):
                self.failures.append(record)
            case AwaitHook(plugin, _):
                return self.hook(plugin)
            case _:
                pass
        return None


class Pending:
    """One acquisition under way, which is also a member of the heartbeat.

    Attributes:
        state: ``waiting`` for a wake, ``paused`` after an error, or how the acquisition ended.
        hold: The hold that was granted.
        error: The exception that the acquisition raised.
        woken: Whether a wake came since the last step.
        unanswered: See :class:`lockkit.protocol.renewing.Waiting`.
    """

    unanswered = 0

    def __init__(self, stepper: Stepper, attempt: Attempt) -> None:
        self.stepper = stepper
        self.attempt = attempt
        self.state: State = "paused"
        self.hold: Hold | None = None
        self.error: BaseException | None = None
        self.woken = False
        self._watch: Watch | None = None
        clock = stepper.clock
        self._running = Running(
            acquiring(attempt, stepper.backend.capabilities, clock.now, clock.wall, lambda: 0.5)
        )
        self._begun = False

    @property
    def claim(self) -> Claim:
        assert self.attempt.claim is not None
        return self.attempt.claim

    @property
    def claim_id(self) -> str:
        return claim_id(self.claim.token)

    @property
    def position(self) -> int:
        """The number of claims ahead, as the store said when it was last asked."""
        effect = self._running.effect
        assert isinstance(effect, WaitForWake)
        return effect.position

    @property
    def over(self) -> bool:
        return self.state not in ("waiting", "paused")

    def wake(self) -> None:
        """Note that a watch or a heartbeat has woken the waiter."""
        self.woken = True

    def missed(self) -> None:
        """Do nothing, because the test itself lets heartbeats fail."""

    def watch(self) -> None:
        """Begin the watch that a waiting client would have."""
        self._unwatch()
        effect = self._running.effect
        assert isinstance(effect, WaitForWake)
        watch = self.stepper.backend.watch(effect.claim.terms.name, effect.blockers, self.wake, effect.claim)
        self._watch = watch

    def step(self) -> State:
        """Continue until the acquisition waits, pauses or ends."""
        if self.over:
            return self.state
        self.woken = False
        self._unwatch()
        running, begun, self._begun = self._running, self._begun, True
        try:
            if begun:
                running.answered()
            else:
                running.begin()
            running.until_it_waits(self.stepper.perform)
        except BaseException as error:
            return self._failed(error, "failed")
        if running.effect is None:
            self.hold = self.attempt.hold = running.value
            if self.hold is not None:
                self.hold.levels = (_IN_HAND.level,)
            self.attempt.sent = False
            self.state = "held" if running.value is not None else "busy"
            return self.state
        self.state = "waiting" if isinstance(running.effect, WaitForWake) else "paused"
        return self.state

    def run(self) -> State:
        """Continue through all pauses, until the acquisition waits or ends."""
        for _ in range(_FEW):
            if self.step() != "paused":
                return self.state
        raise AssertionError(f"still in trouble after {_FEW} tries")

    def cancel(self, error: BaseException | None = None) -> None:
        """Interrupt the acquisition (Ctrl-C). A claim that may be left becomes an orphan, as in a driver."""
        error = error or KeyboardInterrupt()
        self._unwatch()
        try:
            self._running.failed(error)
        except BaseException as raised:
            self._failed(raised, "cancelled")

    def _failed(self, error: BaseException, state: State) -> State:
        self.error = error
        self.stepper.drive(taking_back(self.attempt))
        self.state = state
        return state

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None
