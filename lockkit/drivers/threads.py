"""The thread driver: performs the protocol's effects in the calling thread, and owns what runs in the background."""

from __future__ import annotations

import _thread
import logging
import math
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from random import Random
from typing import TypeVar

from lockkit.clock import Clock
from lockkit.drivers.cleanup import OVERRUNS, CleanupHook, CleanupRuns
from lockkit.drivers.closing import Closing
from lockkit.drivers.dispatch import DETAIL, Dispatcher
from lockkit.drivers.errand import Errand
from lockkit.drivers.heartbeat import Heartbeat
from lockkit.drivers.lifecycle import await_the_end, over
from lockkit.drivers.orphans import Orphans
from lockkit.drivers.patience import patiently
from lockkit.drivers.registry import Registry
from lockkit.drivers.starting import start
from lockkit.drivers.stopwatch import Stopwatch
from lockkit.drivers.telling import Telling
from lockkit.drivers.ticker import no_thread, thread_refused
from lockkit.drivers.waits import OnWait, Waits, sleep_until
from lockkit.errors import AcquireCancelled, BackendError, LeaseLost
from lockkit.events import Counters
from lockkit.facts import (
    LOSSES,
    CleanupContext,
    LayerReport,
    Reason,
    ReleaseOutcome,
    ReleaseReport,
)
from lockkit.hold import Hold
from lockkit.names import claim_id
from lockkit.protocol.acquiring import Attempt, acquiring, taking_back
from lockkit.protocol.beating import MOMENT, Beats
from lockkit.protocol.denials import named
from lockkit.protocol.effects import (
    AwaitHook,
    Effect,
    GoOn,
    Lost,
    Notify,
    Orphan,
    Pause,
    RecordFailure,
    StartHook,
    WaitForWake,
    Withdraw,
)
from lockkit.protocol.releasing import CLEANUP_BUDGET, PATIENCE, Pipeline, releasing
from lockkit.protocol.renewing import losing
from lockkit.protocol.running import to_its_end
from lockkit.store.spi import RELEASED, REQUEST_TIMEOUT, Backend, Claim, Granted, Lapsed, Refused, Unknown

__all__ = ["Driver"]

_log = logging.getLogger("lockkit")
_JOIN = 0.15
_GRACE = 0.5
"""Seconds beyond its budget after which a cleanup hook is not waited for."""
_START_AGAIN = 0.5
"""Seconds after which a thread that could not be started is tried again."""
_CLOSE_BUDGET = 1.9
"""Seconds that releasing everything may take in all, beyond the cleanup hooks, when a client closes."""

_LATE_BUDGET = 0.5
"""Seconds for taking a claim back when the client is closed already."""

T = TypeVar("T")


class Driver:
    """One client's engine in one process.

    Args:
        backend: The open store.
        dispatcher: Tells events.
        cleanup_hooks: The ``lockkit_cleanup`` implementations in force.
        record_failure: Writes a critical-failure record, fsynced.

    Attributes:
        registry: The holds that its locks have taken.
        closed: It gives out nothing any more.
        gone: Nobody needs to see to its end: it is on its way, or the end of the process is.
        used_by: A weak reference to the client, with a callback that drops the engine.
    """

    def __init__(
        self,
        backend: Backend,
        clock: Clock,
        counters: Counters,
        dispatcher: Dispatcher,
        cleanup_hooks: Callable[[], Sequence[CleanupHook]],
        record_failure: Callable[[dict[str, object]], None],
        cleanup_budget: float = CLEANUP_BUDGET,
        request_timeout: float = REQUEST_TIMEOUT,
    ) -> None:
        self.pid = os.getpid()
        self.backend = backend
        self.clock = clock
        self.counters = counters
        self.dispatcher = dispatcher
        self._tell = Telling(counters, dispatcher, clock, self._look_soon)
        self._capabilities = backend.capabilities
        self._cleanup_hooks = cleanup_hooks
        self._cleanup_budget = cleanup_budget
        self.request_timeout = request_timeout
        self._record_failure = record_failure
        self._overruns = OVERRUNS
        self._cleaning = Stopwatch(clock, cleanup_budget + _GRACE)
        self._mutex = threading.RLock()
        self._closing: Errand | None = None
        self._leaving: Errand | None = None
        self.closed = False
        self.gone = False
        self._dropped = False
        self.used_by: weakref.ref[object] | None = None
        self.registry = Registry()
        self.under_way: dict[Attempt, Waits | None] = {}
        self._over: set[Attempt] = set()
        self.orphans = Orphans(backend, clock, dispatcher.tell, request_timeout, self._look_soon)
        self._random = Random().random  # its own, because a program may seed that of the module
        self._started = False
        self.beats = Beats(
            clock.now,
            self._random,
            self._capabilities.waiter_deadline,
            request_timeout,
            lambda count: counters.add("renewals", count),
        )
        self.heartbeat = Heartbeat(self.beats, clock, backend, self.perform, self._look_after)

    def acquire(self, attempt: Attempt, on_wait: OnWait | None = None) -> Hold | None:
        """Acquire; None only on a definite "busy". Leaves nothing behind unless it returns a hold.

        With a hold, the attempt stays ``under_way`` and ``attempt.sent`` true until the caller has a handle for it; cut
        short before that, the caller must set ``attempt.over`` and :meth:`take_back`.
        """
        next(self.counters.steps["attempts"])
        clock = self.clock
        waits: Waits | None = None

        def perform(effect: Effect) -> object:
            nonlocal waits
            if not isinstance(effect, (WaitForWake, Pause)):
                return self.perform(effect)
            if waits is None:
                waits = self.under_way[attempt] = Waits(self, attempt, on_wait)
            waits.wait(effect) if isinstance(effect, WaitForWake) else waits.pause(effect.until)
            return None

        hold: Hold | None
        self.under_way[attempt] = None
        try:
            if self.closed:
                raise AcquireCancelled("this client is closed", name=attempt.terms.name)
            if not self._started:  # before the store is asked: no grant without a heartbeat
                self.heartbeat.start()
                self._started = True
            steps = acquiring(attempt, self._capabilities, clock.now, clock.wall, self._random)
            hold = to_its_end(steps, self.backend, perform)
            if hold is not None:
                attempt.hold = hold
                self.beats.hold(hold)
                if self.closed:
                    raise AcquireCancelled("the client was closed while acquiring", name=hold.name)
        except BaseException as error:
            # First, and without a call: from here on the background takes back what this may not.
            attempt.over = True
            self.take_back(attempt)
            self._tell.failed(attempt, error)
            if no_thread(error):
                raise thread_refused(error, attempt.terms.name) from error
            if isinstance(error, AcquireCancelled):
                await_the_end()
            raise
        finally:
            if waits is not None:
                waits.close()
            # Else it has a hold, or the background takes back what a signal kept this thread from.
            if not attempt.sent:
                self.under_way.pop(attempt, None)
        if hold is None:
            self._tell.busy(attempt)
            return None
        next(self.counters.steps["acquired"])
        if self.dispatcher.listening or _log.isEnabledFor(DETAIL):
            self._tell.acquired(attempt, hold)
        return hold

    def take_back(self, attempt: Attempt) -> None:
        """End an attempt, whatever interrupted it, and leave nothing of it behind. A second Ctrl-C does not stop this."""
        while True:
            try:
                if self._take_back(attempt) and self.closed:
                    self.orphans.flush(_LATE_BUDGET)
                return
            except BaseException as another:
                if isinstance(another, Exception):
                    raise

    def _take_back(self, attempt: Attempt) -> bool:
        return to_its_end(taking_back(attempt), self.backend, self.perform)

    def tidy(self) -> bool:
        """Take back what is left of attempts that are over and were cut short at that; whether there may be more."""
        seen, self._over = self._over, {attempt for attempt in list(self.under_way) if attempt.over}
        for attempt in self._over & seen:  # not only just over
            self._take_back(attempt)
            waits = self.under_way.pop(attempt, None)
            if waits is not None:
                waits.close()
        return bool(self._over)

    def release(self, hold: Hold, reason: Reason, request_timeout: float | None = None) -> ReleaseReport:
        """Take the release of a hold to its end, from wherever it is; then raise what interrupted this thread at it.

        One thread at a time; the next goes on where the last was cut short, or finds the report.

        Args:
            hold: The hold to release; all its levels are left.
            reason: Kept in events, journal and metrics.
            request_timeout: Seconds that the requests may take in all, if not the client's; 0 sends none.
        """
        with hold.turn:
            hold.turn_of = threading.get_ident()
            try:
                if hold.report is None:
                    self.beats.releasing[hold] = None
                    self._release(hold, reason, request_timeout)
                assert hold.report is not None
                return hold.report
            finally:
                hold.turn_of = 0
                if hold.report is not None:
                    self.beats.releasing.pop(hold, None)

    # Apart from the ``with`` above: in CPython 3.11 an exception at the start of this loop would not leave it.

    def _release(self, hold: Hold, reason: Reason, request_timeout: float | None) -> None:
        if hold.work is None:
            hooks = self._cleanup_hooks()
            plugins = [name for name, _ in hooks] if hooks else ()
            hold.work = (
                Pipeline(hold, reason, plugins, self._cleanup_budget, self.request_timeout),
                self._runs(hold, reason, hooks) if hooks else None,
            )
        pipeline: Pipeline = hold.work[0]
        runs: CleanupRuns | None = hold.work[1]
        perform = self.perform if runs is None else partial(self.perform, runs=runs)
        if request_timeout is not None:
            pipeline.request_timeout = min(pipeline.request_timeout, request_timeout)
        interrupts = pipeline.interrupts = []
        report: ReleaseReport | None = None
        while report is None:
            try:
                report = to_its_end(releasing(pipeline, self.clock.now), self.backend, perform)
            except BaseException as interrupt:
                # The interrupt hit the generator itself; a new generator goes on from what `pipeline` records.
                interrupts.append(interrupt)
                if len(interrupts) > PATIENCE:
                    raise
        if report.outcome == "RELEASED":
            next(self.counters.steps["released"])
            if self.dispatcher.listening or _log.isEnabledFor(DETAIL):
                self._tell.released(pipeline)
        if pipeline.refusals or pipeline.emergency is not None or pipeline.stolen:
            self._tell.trouble(pipeline)
        if interrupts:
            raise interrupts[0]

    def _runs(self, hold: Hold, reason: Reason, hooks: Sequence[CleanupHook]) -> CleanupRuns:
        return CleanupRuns(hooks, self._overruns, self.clock, lambda end: self._context(hold, reason, end))

    def go_on(self, hold: Hold) -> None:
        """Go on with a release that was cut short, on a thread of its own, unless somebody is at it."""
        if hold.report is not None or hold.turn_of or self.closed:
            return
        hold.leave()
        try:
            start(lambda: self._go_on(hold), "lockkit-release")
        except RuntimeError as error:  # the deadline thread asks again
            _log.warning("cannot start a thread to go on with the release of %r: %s", hold.name, error)

    def _go_on(self, hold: Hold) -> None:
        try:
            self.release(hold, "error")
        except Exception:
            _log.exception("the release of %r, gone on with in the background, failed", hold.name)

    def confirm(self, hold: Hold) -> None:
        """Ask the store, in one round trip; again while the trouble may pass, within the request timeout.

        The call takes no more than half of the time that the hold has left, so that the caller has time to stop.

        Raises:
            LeaseLost: It records the claim no more, or the hold has run out meanwhile.
            BackendError: It gave no answer; the lease is as valid as before.
        """
        answer = self._ask(hold, lambda budget: self.backend.acquire(hold.claim, False, budget))
        now = self.clock.now()
        if isinstance(answer, Granted) and answer.fence == hold.fence and hold.renewed(answer.basis, now):
            self.beats.again(hold)
            return
        self.lose(hold, hold.overdue(now) or (answer.why if isinstance(answer, Lapsed) else "lost"))
        raise _lost(hold)

    def extend(self, hold: Hold, claim: Claim, patience: float | None = None) -> None:
        """Renew with the longer ttl of ``claim`` (same token) from now on, within ``patience``; errors as :meth:`confirm`."""
        ttl = claim.terms.ttl
        renewal = self._ask(
            hold, lambda budget: self.backend.extend(hold.claim, hold.fence, ttl, budget), patience
        )
        now = self.clock.now()
        if renewal.state == "HELD" and hold.extended(claim, renewal.basis, now):
            self.beats.again(hold)
            return
        self.lose(hold, hold.overdue(now) or renewal.why or "lost")
        raise _lost(hold)

    def _ask(self, hold: Hold, call: Callable[[float], T], patience: float | None = None) -> T:
        left = hold.expires - self.clock.now()
        if left > 0:
            patience = left / 2 if patience is None else min(patience, left / 2)
        try:
            return self.request(call, hold.name, patience)
        except BackendError:
            if why := hold.overdue(self.clock.now()):
                self.lose(hold, why)
            if hold.lost_why:
                raise _lost(hold) from None
            raise

    def request(
        self, call: Callable[[float], T], name: str | None = None, patience: float | None = None
    ) -> T:
        """An idempotent call, repeated while the trouble may pass, within the request timeout.

        Args:
            call: Told how many seconds it may take.
            name: The lock it is about.
            patience: Seconds that all of it may take, if that is less.

        Raises:
            BackendError: It did not pass.
        """
        try:
            longest = self.request_timeout if patience is None else min(patience, self.request_timeout)
            return patiently(call, self.clock, longest)
        except (Refused, Unknown) as trouble:
            raise named(trouble.error, name) from None

    def remove(self, claim: Claim, fence: int, reason: Reason) -> ReleaseReport:
        """Compare-and-remove a claim by its token, for a copy of a lease."""
        name, began = claim.terms.name, self.clock.now()
        for hold in self.beats.holds():
            if (hold.claim.token, hold.name) == (
                claim.token,
                name,
            ):  # the lease that was copied is this client's: it is no longer valid
                hold.end()
                self.beats.withdraw(claim.token)
        answer = self.request(lambda budget: self.backend.release(claim, budget), name)
        layer = LayerReport("normal", "DONE" if answer == RELEASED else "ABSENT", self.clock.now() - began)
        outcome: ReleaseOutcome = "RELEASED" if answer == RELEASED else "LOST"
        if answer == RELEASED:
            self.counters.add("released")
        else:
            self.counters.add("ownership_violations")
        return ReleaseReport(name, claim_id(claim.token), fence, outcome, reason, (layer,))

    def holds(self, name: str, claim: str) -> bool:
        """Whether the store records that claim as HELD."""
        info = self.request(lambda budget: self.backend.inspect(name, budget), name)
        return any(one.claim_id == claim and one.state == "HELD" and not one.evicted for one in info.claims)

    def lose(self, hold: Hold, why: Reason) -> None:
        """Declare a hold lost, with all that follows; once."""
        to_its_end(losing(hold, why), self.backend, self.perform)

    # -- the end

    def close(self, reason: Reason) -> None:
        """Release what is held, take back what is waiting, try the orphan list once; bounded. Then stop renewing.

        May be called again, from any thread, also after an exception of a signal handler ended it: it goes on.
        """
        self._errand(reason, _CLOSE_BUDGET).wait()

    def begin_close(self, reason: Reason, budget: float) -> None:
        """Begin :meth:`close` in the background, because the process ends."""
        self.gone = True
        self._errand(reason, budget).begin()

    def _errand(self, reason: Reason, budget: float) -> Errand:
        with self._mutex:
            errand = self._to_close(reason, budget)
            beats = self.beats
            # No signal is let through here.
            self._closing, self.closed, beats.closing = self._closing or errand, True, True
            return self._closing

    def _to_close(self, reason: Reason, budget: float) -> Errand:
        return Errand("lockkit-close", Closing(self, reason, budget).run, self.heartbeat.lend)

    def await_close(self, longest: float) -> None:
        """Wait for the close, at most ``longest`` seconds beyond cleanup hooks; then log which claims are left."""
        if self._closing is not None:
            self._closing.wait(longest, lambda: self.cleaning)
        left = [*self.orphans.left(), *(hold.claim for hold in self.beats.holds())]
        if left:
            names = ", ".join(sorted({repr(claim.terms.name) for claim in left})[:5])
            longest = max(claim.terms.ttl + claim.terms.lock_delay for claim in left)
            _log.error(
                "the process ends with claims that the store did not confirm to be removed (%d: %s%s); they lapse by %s",
                len(left),
                names,
                ", ..." if len(left) > 5 else "",
                datetime.fromtimestamp(self.clock.wall() + longest, UTC).isoformat(timespec="seconds"),
            )

    def leave(self, reason: Reason) -> Errand:
        """Close, and let go of the store once nothing is left to remove: for a client in a process that lives on.

        An exception of a signal handler finds nothing done, or all decided: then the background begins it if nobody else
        does, at the latest within a ttl, or when the client is collected. May be called again, from any thread.

        Returns:
            What is to be waited for, or begun.
        """
        with self._mutex:
            closing = self._to_close(reason, _CLOSE_BUDGET)
            leaving = Errand("lockkit-close", self._leave, self.heartbeat.lend)
            beats = self.beats
            # No signal is let through between these, and a handler before them may have closed it.
            self._closing, self._leaving, self.closed, beats.closing = (
                self._closing or closing,
                self._leaving or leaving,
                True,
                True,
            )
            return self._leaving

    def _leave(self) -> None:
        self.gone = True
        assert self._closing is not None
        self._closing.do()
        self._retire()

    def _retire(self) -> None:
        over(self)
        try:
            self.orphans.retire(self.backend.close)
        finally:
            self.heartbeat.join(_JOIN)
            if not len(self.orphans):
                self.orphans.join(_JOIN)
            self.dispatcher.close(_JOIN)

    def drop(self) -> None:
        """End by itself once nothing is held, or at once if it is closed: its client was collected.

        Takes no lock, so a finalizer may call it.
        """
        self._dropped = True
        if self.heartbeat.running and not self.closed:
            self.heartbeat.look()
            return
        try:  # not by the deadline thread: if it is closed, that one may end without another look
            _thread.start_new_thread(lambda: self.leave("exit").begin(), ())
        except RuntimeError:  # no thread to be had: that one then, or its descriptors go with the process
            self.heartbeat.look()

    def wake_all(self) -> None:
        """Have the threads that wait look whether they still may; their claims land on the orphan list."""
        for waiter in self.beats.waiting():
            waiter.wake()

    @property
    def unsettled(self) -> bool:
        """Whether a thread is in an acquire, or what an acquire has left on the store is not on the orphan list yet."""
        return not all(attempt.over and not attempt.sent for attempt in list(self.under_way))

    @property
    def cleaning(self) -> bool:
        """Whether a cleanup hook runs; not if it hangs in a thread that could give it no time limit."""
        return self._cleaning.moving

    def working_time(self) -> float:
        """A clock that stands still while cleanup hooks run."""
        return self.clock.now() - self._cleaning.total()

    def _look_after(self, now: float) -> float:
        """In the deadline thread: start what could not be started; CLOCK_BOOTTIME seconds of the next look."""
        again = now + MOMENT if self.tidy() else math.inf
        if self._dropped and (self.closed or self.heartbeat.empty):
            self.leave("exit").begin()
        elif self._leaving is not None:  # perhaps a signal came before it was begun
            self._leaving.begin()
        started = self.dispatcher.look()
        return again if self.orphans.start() and started else min(again, now + _START_AGAIN)

    def _look_soon(self) -> None:
        self.heartbeat.look()

    # -- effects

    def perform(self, effect: Effect, runs: CleanupRuns | None = None) -> object:
        """Perform an effect that is no request, and waits for no claim.

        Args:
            effect: What to do.
            runs: The cleanup hooks, for a release that has some.
        """
        match effect:
            case Withdraw():
                self.beats.withdraw(effect.claim.token)
            case Pause(until):
                sleep_until(self.clock, until)
            case StartHook(plugin, budget) if runs is not None:
                runs.start(plugin, budget)
            case AwaitHook(plugin, wait) if runs is not None:
                with self._cleaning:
                    return runs.report(plugin, wait=wait)
            case Notify(what):
                self.dispatcher.tell(what)
            case Lost(hold, why):
                self._tell.lost(hold, why)
            case Orphan():
                self.orphans.add(effect)
            case RecordFailure(record):
                self._record_failure(dict(record))
            case GoOn(hold):
                self.go_on(hold)
            case _:
                raise TypeError(f"no driver for {effect!r} here")
        return None

    def _context(self, hold: Hold, reason: Reason, end: float) -> CleanupContext:
        return CleanupContext(
            name=hold.name,
            claim_id=hold.claim_id,
            fence=hold.fence,
            reason=reason,
            where="wrapper" if hold.where == "wrapper" else "process",
            budget=lambda: max(0.0, end - self.clock.now()),
            owner=hold.owner,
            lost=bool(hold.lost_why),
            note=hold.claim.note or {},
        )


def _lost(hold: Hold) -> LeaseLost:
    return LeaseLost(
        f"the hold of {hold.name!r} (fence {hold.fence}) may have lapsed: {LOSSES.get(hold.lost_why, hold.lost_why) or 'ended'}",
        name=hold.name,
        hint="stop the guarded work; acquire again for a new fence",
    )
