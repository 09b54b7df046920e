"""The thread driver: performs the protocol's effects in the calling thread, and owns background threads."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from lockkit.config.suggesting import SameStore
from lockkit.drivers.dispatch import DETAIL, Dispatcher
from lockkit.drivers.ending import Ending
from lockkit.drivers.heartbeat import Heartbeat
from lockkit.drivers.lifecycle import await_the_end
from lockkit.drivers.orphans import Orphans
from lockkit.drivers.registry import Registry
from lockkit.drivers.releases import Releases
from lockkit.drivers.requests import Requests
from lockkit.drivers.telling import Telling
from lockkit.drivers.ticker import no_thread, thread_refused
from lockkit.drivers.together import ThreadTogether, WaitsTogether
from lockkit.drivers.waits import ThreadWaits, Waits, sleep_until
from lockkit.errors import AcquireCancelled
from lockkit.facts import Reason
from lockkit.lib.clock import Clock
from lockkit.lib.forks import IMPORTS
from lockkit.lib.origin import this_origin
from lockkit.plugins.calling import Implementation
from lockkit.protocol.acquiring import acquiring, taking_back
from lockkit.protocol.attempt import Attempt, UnderWay
from lockkit.protocol.beating import MOMENT, Beats
from lockkit.protocol.effects import (
    Asked,
    Effect,
    GoOn,
    Lost,
    Notify,
    Orphan,
    Pause,
    RecordFailure,
    WaitForWake,
    Withdraw,
)
from lockkit.protocol.hold import REGISTRIES, Hold
from lockkit.protocol.releasing import CLEANUP_BUDGET
from lockkit.protocol.renewing import losing
from lockkit.protocol.running import to_its_end
from lockkit.protocol.together import Together, Tools
from lockkit.store.log import Log
from lockkit.store.spi import REQUEST_TIMEOUT, Backend
from lockkit.values.events import Counters

if TYPE_CHECKING:
    from lockkit.drivers.choices import Choices
    from lockkit.protocol.composing import Steps

try:  # the generator of random, without the distributions that it also imports and builds
    from _random import Random
except ImportError:
    from random import Random  # type: ignore[assignment]

__all__ = ["LATE_BUDGET", "Driver"]

_log = Log("lockkit")
_START_AGAIN = 0.5
"""Seconds after which a thread that could not be started is tried again."""
_EACH = 2.0
"""Seconds between two checks of acquisitions under way: nothing reports that their event loop was closed."""
LATE_BUDGET = 0.5
"""Seconds for taking a claim back when the client is closed already."""


class Driver:
    """One client's engine in one process.

    Args:
        backend: The open store.
        dispatcher: Tells events.
        cleanup_hooks: The ``lockkit_cleanup`` implementations in force.
        record_failure: Writes a critical-failure record, fsynced.
        same_store: Tells how a command that an error suggests uses the same store.

    Attributes:
        registry: The holds that its locks have taken.
        requests: Sends all requests beside acquire and release.
        releases: The releases of its holds.
        ending: Ends the engine when the client is closed or collected, or the process ends.
        tools: The things that the protocol needs to acquire.
        used_by: A weak reference to the client, with a callback that drops the engine.
    """

    def __init__(
        self,
        backend: Backend,
        clock: Clock,
        counters: Counters,
        dispatcher: Dispatcher,
        cleanup_hooks: Callable[[], Sequence[Implementation]],
        record_failure: Callable[[dict[str, object]], None],
        cleanup_budget: float = CLEANUP_BUDGET,
        request_timeout: float = REQUEST_TIMEOUT,
        same_store: Callable[[], SameStore] = SameStore,
    ) -> None:
        self.origin = this_origin()
        self.backend = backend
        self.clock = clock
        self.counters = counters
        self.dispatcher = dispatcher
        self._tell = Telling(counters, dispatcher, clock, self._look_soon)
        self.request_timeout = request_timeout
        self._record_failure = record_failure
        self._started = False
        self.same_store = same_store
        self.used_by: weakref.ref[object] | None = None
        self.registry = Registry()
        REGISTRIES.add(self.registry)
        self.under_way: dict[UnderWay, Waits | WaitsTogether | None] = {}
        self._over: set[UnderWay] = set()
        self.orphans = Orphans(backend, clock, dispatcher.tell, request_timeout, self._look_soon)
        random = Random().random  # its own, because a program may seed that of the module
        self.tools = Tools(backend.capabilities, clock.now, clock.wall, random)
        self.beats = Beats(
            clock.now,
            random,
            backend.capabilities.waiter_deadline,
            request_timeout,
            lambda count: counters.add("renewals", count),
        )
        self.heartbeat = Heartbeat(self.beats, clock, backend, self.perform, self._look_after)
        self._choices: Choices | None = None
        self.requests = Requests(backend, clock, counters, self.beats, request_timeout, self.lose)
        self.releases = Releases(self, self._tell, cleanup_hooks, cleanup_budget)
        self.ending = Ending(self)

    @property
    def choices(self) -> Choices:
        """The threads that ask choosers; most clients never have any."""
        if self._choices is None:
            with IMPORTS:
                from lockkit.drivers.choices import Choices

            self._choices = Choices()
        return self._choices

    def end_choices(self) -> None:
        """Have the threads that ask choosers end, once no chooser is being asked."""
        if self._choices is not None:
            self._choices.close()

    @property
    def closed(self) -> bool:
        """Whether the engine grants nothing any more."""
        return self.beats.closing

    def acquire(self, attempt: Attempt) -> Hold | None:
        """Acquire; None only on a definite "busy". Leaves nothing behind unless it returns a hold.

        With a hold, the attempt stays ``under_way`` and ``attempt.sent`` true until the caller has a handle;
        cut short before that, the caller must set ``attempt.over`` and :meth:`take_back`.
        """
        waits: ThreadWaits | None = None

        def perform(effect: Effect) -> object:
            nonlocal waits
            if not isinstance(effect, (WaitForWake, Pause)):
                return self.perform(effect)
            if waits is None:
                waits = self.under_way[attempt] = ThreadWaits(self, attempt)
            waits.wait(effect) if isinstance(effect, WaitForWake) else waits.pause(effect.until)
            return None

        self.under_way[attempt] = None
        try:
            next(self.counters.steps["attempts"])
            if self.beats.closing or attempt.call.cancel is not None or not self._started:
                self.begin(attempt)  # it checks the same; skipped on the hot path
            hold = to_its_end(acquiring(attempt, *self.tools), self.backend, perform)
            if hold is not None:
                self.granted(attempt, hold)
                return hold
        except BaseException as error:
            # Set before any call: a signal in take_back() then leaves the rest to the background.
            attempt.over = True
            self.take_back(attempt)
            self.failed(attempt, error)
            if isinstance(error, AcquireCancelled):
                await_the_end()
            raise
        finally:
            if waits is not None:
                waits.close()
            # Otherwise there is a hold, or a signal interrupted take_back() and the background does the rest.
            if not attempt.sent:
                self.under_way.pop(attempt, None)
        self._tell.busy(attempt)
        return None

    def begin(self, under_way: Attempt | Together) -> None:
        """Begin an acquisition that is ``under_way``.

        Raises:
            AcquireCancelled: The client is closed, or the switch was thrown before.
            RuntimeError: The heartbeat cannot be started.
        """
        name = under_way.terms.name if isinstance(under_way, Attempt) else None
        if self.closed:
            raise AcquireCancelled("this client is closed", name=name)
        cancel = under_way.call.cancel
        if cancel is not None and cancel.cancelled():
            raise AcquireCancelled("the wait was cancelled before it began", name=name)
        if not self._started:  # before the store is asked: no grant without a heartbeat
            self.heartbeat.start()
            self._started = True

    def granted(self, attempt: Attempt, hold: Hold) -> None:
        """Keep a granted hold alive, and report it.

        Raises:
            AcquireCancelled: The client was closed meanwhile.
        """
        attempt.hold = hold
        beats = self.beats
        beats.hold(hold)
        if beats.closing:
            raise AcquireCancelled("the client was closed while acquiring", name=hold.name)
        next(self.counters.steps["acquired"])
        if self.dispatcher.listening or _log.isEnabledFor(DETAIL):
            self._tell.acquired(attempt, hold)

    def busy(self, attempt: Attempt) -> None:
        """Report an attempt that was refused."""
        self._tell.busy(attempt)

    def failed(self, attempt: Attempt, error: BaseException) -> None:
        """Report an attempt that ended in an error.

        Raises:
            BackendUnavailable: In place of an error that says that no thread can be started.
        """
        self._tell.failed(attempt, error)
        attempt.trouble = None  # else a cycle: the error, the frames in its traceback, the attempt
        if no_thread(error):
            raise thread_refused(error, attempt.terms.name) from error

    def acquire_together(self, together: Together, steps: Steps) -> list[Attempt] | None:
        """Acquire several locks; None only on a definite "busy". Leaves nothing behind unless it succeeds.

        With holds, the acquisition stays ``under_way`` until the caller has handles for all and sets
        ``together.handed``; cut short before, the caller must set ``together.over`` and :meth:`take_back`.
        """
        waits = ThreadTogether(self, together)
        got: list[Attempt] | None
        self.under_way[together] = waits
        try:
            self.begin(together)
            got = to_its_end(steps, self.backend, waits.perform)
            self.got_together(got)
        except BaseException as error:
            # Set before any call: a signal in take_back() then leaves the rest to the background.
            together.over = True
            self.take_back(together)
            self.failed_together(together, error)
            if isinstance(error, AcquireCancelled):
                await_the_end()
            raise
        finally:
            waits.close()
            if not together.sent:
                self.under_way.pop(together, None)
        self.told_together(together, got)
        return got

    def got_together(self, got: Sequence[Attempt] | None) -> None:
        """Check that holds may be handed out.

        Raises:
            AcquireCancelled: The client was closed meanwhile.
        """
        if got is not None and self.closed:
            raise AcquireCancelled("the client was closed while acquiring")

    def told_together(self, together: Together, got: Sequence[Attempt] | None) -> None:
        """Report an acquisition of several locks that got its holds, or was refused."""
        self._tell.together(together, got or [])

    def failed_together(self, together: Together, error: BaseException) -> None:
        """Report an acquisition of several locks that ended in an error.

        Raises:
            BackendUnavailable: In place of an error that says that no thread can be started.
        """
        self._tell.together(together, [], error)
        if no_thread(error):
            raise thread_refused(error, None) from error

    def take_back(self, attempt: UnderWay) -> None:
        """End an interrupted acquisition; nothing of it is left. A second Ctrl-C does not stop this."""
        while True:
            try:
                if self.give_back(attempt) and self.closed:
                    self.orphans.flush(LATE_BUDGET)
                return
            except BaseException as another:
                if isinstance(another, Exception):
                    raise

    def detached(self, key: object) -> None:
        """Have a waiter ask again, because its lease was detached and its claim must not name it."""
        for under_way, waits in list(self.under_way.items()):
            if waits is not None and any(attempt.key == key for attempt in under_way.parts):
                waits.ask_again()

    def give_back(self, attempt: UnderWay) -> bool:
        """Leave the rest of an acquisition to the background; return whether there was any. Never blocks."""
        return to_its_end(taking_back(attempt), self.backend, self.perform)

    def tidy(self) -> bool:
        """Take back attempts whose end was cut short, or that cannot continue; whether more may follow."""
        over = {
            each
            for each in list(self.under_way)
            if (each.over or not each.runs()) and (each.job is None or each.job.done())
        }
        seen, self._over = self._over, over
        for attempt in self._over & seen:  # only those that were over at the last look, too
            self.give_back(attempt)
            self.forget(attempt)
        return bool(self._over)

    def forget(self, attempt: UnderWay) -> None:
        """Close the waits of an acquisition that is over, and forget it. Any thread may repeat this."""
        waits = self.under_way.get(attempt)
        if waits is not None:
            waits.close()  # first: if a signal cuts it short, the background repeats it
        self.under_way.pop(attempt, None)

    def lose(self, hold: Hold, why: Reason) -> None:
        """Declare a hold lost, with all that follows; once."""
        to_its_end(losing(hold, why), self.backend, self.perform)

    def _look_after(self, now: float) -> float:
        """In the deadline thread: start what failed to start; return the CLOCK_BOOTTIME of the next look."""
        again = now + MOMENT if self.tidy() else now + _EACH if self.under_way else math.inf
        self.ending.look()
        started = self.dispatcher.look()
        return again if self.orphans.start() and started else min(again, now + _START_AGAIN)

    def catch_up(self) -> None:
        """Do here what is due by now, and have all threads read the clock: for a test that moved it."""
        self.heartbeat.catch_up()
        self.ending.wake_all()

    def _look_soon(self) -> None:
        self.heartbeat.look()

    # -- effects

    def perform(self, effect: Effect) -> object:
        """Perform an effect other than a request, a wait for a claim, or a cleanup hook."""
        match effect:
            case Withdraw():
                self.beats.withdraw(effect.claim.token)
            case Pause(until):
                sleep_until(self.clock, until)
            case Notify(what):
                self.dispatcher.tell(what)
            case Lost(hold, why):
                self._tell.lost(hold, why)
            case Asked(hold, requests):
                self._tell.asked(hold, requests)
            case Orphan():
                self.orphans.add(effect)
            case RecordFailure(record):
                self._record_failure(dict(record))
            case GoOn(hold):
                self.releases.go_on(hold)
            case _:
                raise TypeError(f"no driver for {effect!r} here")
        return None
