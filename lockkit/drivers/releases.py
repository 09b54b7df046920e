"""The releases of an engine: one thread or task at a time performs each, and the next one continues it."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from lockkit.drivers.cleanup import OVERRUNS, CleanupRuns, context_of, hooks_of
from lockkit.drivers.dispatch import DETAIL
from lockkit.drivers.stopwatch import Stopwatch
from lockkit.drivers.telling import Telling
from lockkit.facts import Reason, ReleaseReport
from lockkit.plugins.calling import Implementation
from lockkit.protocol.effects import AwaitHook, Effect, StartHook
from lockkit.protocol.hold import Hold, always
from lockkit.protocol.releasing import PATIENCE, Pipeline, releasing
from lockkit.protocol.running import to_its_end
from lockkit.store.log import Log
from lockkit.store.starting import start

if TYPE_CHECKING:
    from lockkit.drivers.threads import Driver

__all__ = ["Releases"]

_log = Log("lockkit")
_HOOK_GRACE = 0.5
"""Seconds beyond its budget after which a cleanup hook is not waited for."""


class Releases:
    """The releases of one engine, by threads; those by tasks of event loops use the same steps.

    Args:
        driver: The engine.
        tell: Reports how releases end.
        cleanup_hooks: The ``lockkit_cleanup`` implementations in force.
        cleanup_budget: Seconds that each of them may take.

    Attributes:
        cleaning: Measures for how long cleanup hooks run.
        longest_cleanup: Seconds after which a cleanup hook is not waited for.
    """

    def __init__(
        self,
        driver: Driver,
        tell: Telling,
        cleanup_hooks: Callable[[], Sequence[Implementation]],
        cleanup_budget: float,
    ) -> None:
        self._driver = driver
        self._clock = driver.clock
        self._tell = tell
        self._cleanup_hooks = cleanup_hooks
        self._cleanup_budget = cleanup_budget
        self.longest_cleanup = cleanup_budget + _HOOK_GRACE
        self.cleaning = Stopwatch(self._clock, self.longest_cleanup)

    def release(self, hold: Hold, reason: Reason, request_timeout: float | None = None) -> ReleaseReport:
        """Finish the release of a hold, from wherever it is; then raise what interrupted this thread.

        One thread at a time; the next one continues an interrupted release, or finds the report.

        Args:
            hold: The hold to release; all its levels are left.
            reason: Kept in events, journal and metrics.
            request_timeout: Seconds that the requests may take in all, if not the client's; 0 sends none.
        """
        interrupts: list[BaseException] = []
        with hold.turn:
            hold.reserved_by, hold.reserved_until, hold.reserver_runs = (
                threading.get_ident(),
                math.inf,
                always,
            )
            try:
                if hold.report is None:
                    self._driver.beats.releasing[hold] = None
                    self._release(hold, reason, request_timeout, interrupts)
                assert hold.report is not None
                return hold.report
            finally:
                hold.reserved_by = 0
                interrupts.clear()  # what is raised refers to these frames, and must not be kept by them
                if hold.report is not None:
                    self._driver.beats.over(hold)

    # Outside the ``with`` above: in CPython 3.11 an exception at the start of this loop would not leave it.

    def _release(
        self, hold: Hold, reason: Reason, request_timeout: float | None, interrupts: list[BaseException]
    ) -> None:
        pipeline, runs = self.pipeline(hold, reason, request_timeout)
        perform = self._driver.perform if runs is None else partial(self.perform, runs)
        pipeline.interrupts = interrupts
        report: ReleaseReport | None = None
        while report is None:
            try:
                report = to_its_end(releasing(pipeline, self._clock.now), self._driver.backend, perform)
            except BaseException as interrupt:
                # The interrupt hit the generator; a new generator continues from what `pipeline` records.
                interrupts.append(interrupt)
                if len(interrupts) > PATIENCE:
                    raise
        self.over(pipeline)
        if interrupts:
            raise interrupts[0]

    def pipeline(
        self, hold: Hold, reason: Reason, request_timeout: float | None = None
    ) -> tuple[Pipeline, CleanupRuns | None]:
        """A hold's release at its current point, and its cleanup hooks if any. Call in the hold's turn."""
        work: tuple[Pipeline, CleanupRuns | None] | None = hold.work
        if work is None:
            implementations = self._cleanup_hooks()
            hooks = hooks_of(hold, implementations) if implementations or hold.calls_last else ()
            plugins = [hook.plugin for hook in hooks] if hooks else ()
            runs = None
            if hooks:
                context = partial(context_of, hold, reason, self._clock)
                runs = CleanupRuns(hooks, OVERRUNS, self._clock, context)
            work = hold.work = (
                Pipeline(hold, reason, plugins, self._cleanup_budget, self._driver.request_timeout),
                runs,
            )
        if request_timeout is not None:
            work[0].request_timeout = min(work[0].request_timeout, request_timeout)
        return work

    def over(self, pipeline: Pipeline) -> None:
        """Report a release that is over. Call it in the turn of the hold."""
        pipeline.hold.work = None  # else each lock would leave a cycle to the garbage collector
        if pipeline.outcome == "RELEASED":
            next(self._driver.counters.steps["released"])
            dispatcher = self._driver.dispatcher
            named = dispatcher.names and pipeline.hold.name in dispatcher.names
            if named or dispatcher.listening or _log.isEnabledFor(DETAIL):
                self._tell.released(pipeline)
        elif pipeline.outcome == "LOST":
            self._tell.absent(pipeline)
        if pipeline.refusals or pipeline.emergency is not None or pipeline.stolen:
            self._tell.trouble(pipeline)

    def perform(self, runs: CleanupRuns, effect: Effect) -> object:
        """Perform an effect of a release with cleanup hooks that is no request."""
        match effect:
            case StartHook(plugin, budget):
                runs.start(plugin, budget)
            case AwaitHook(plugin, wait):
                with self.cleaning:
                    return runs.report(plugin, wait=wait)
            case _:
                return self._driver.perform(effect)
        return None

    def go_on(self, hold: Hold) -> None:
        """Continue an interrupted release on a separate thread, unless somebody performs it."""
        if hold.report is not None or self._driver.closed or hold.reserved(self._clock.now()):
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
