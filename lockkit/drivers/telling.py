"""Count the ends of attempts and releases, and tell plugins, callbacks and the log of them, and of losses."""

from __future__ import annotations

from collections.abc import Callable

from lockkit.clock import Clock
from lockkit.drivers.dispatch import Dispatcher
from lockkit.errors import AcquireCancelled, AcquireTimeout
from lockkit.events import Counters
from lockkit.facts import LOSSES, Alert, Event, Reason
from lockkit.hold import Hold
from lockkit.protocol.acquiring import Attempt
from lockkit.protocol.releasing import Pipeline

__all__ = ["Telling"]


class Telling:
    """Counts the ends of attempts and releases, and tells of them.

    Args:
        look_soon: Has callbacks called later for which no thread can be had now.
    """

    def __init__(
        self, counters: Counters, dispatcher: Dispatcher, clock: Clock, look_soon: Callable[[], None]
    ) -> None:
        self._counters = counters
        self._dispatcher = dispatcher
        self._clock = clock
        self._look_soon = look_soon

    def acquired(self, attempt: Attempt, hold: Hold) -> None:
        """Tell of a grant."""
        waited = self._clock.now() - attempt.start
        self._dispatcher.tell(Event("acquired", hold.name, hold.claim_id, hold.fence, duration=waited))

    def busy(self, attempt: Attempt) -> None:
        """Count an attempt that was refused, and tell of it."""
        self._counters.add("busy")
        self._ended("busy", attempt)

    def failed(self, attempt: Attempt, error: BaseException) -> None:
        """Count an attempt that ended in an exception, and tell of it if its time was up."""
        if isinstance(error, AcquireTimeout):
            self._counters.add("timeouts")
            self._ended("timeout", attempt)
        elif isinstance(error, AcquireCancelled) or not isinstance(error, Exception):
            self._counters.add("cancelled")
        else:
            self._counters.add("failed")

    def released(self, release: Pipeline) -> None:
        """Tell of a release that the store confirmed."""
        hold = release.hold
        held = self._clock.now() - hold.since
        self._dispatcher.tell(
            Event("released", hold.name, hold.claim_id, hold.fence, release.reason, duration=held)
        )

    def trouble(self, release: Pipeline) -> None:
        """Count what went wrong in a release."""
        if release.refusals:
            self._counters.add("release_script_errors", release.refusals)
        if release.emergency is not None:
            self._counters.add("normal_release_failures")
            self._counters.add("emergency_releases")
        if release.stolen:
            self._counters.add("ownership_violations")

    def lost(self, hold: Hold, why: Reason) -> None:
        """Have the callbacks of a loss called, count the loss, and tell of it."""
        kind = why if why in ("max_hold", "collected") else "lost"
        if kind != "collected":  # before all else: who guards work is to hear first
            for callback in hold.callbacks:
                self._dispatcher.run(callback, hold.name)
            self._look_soon()  # in case there was no thread to be had
        self._dispatcher.tell(Event(kind, hold.name, hold.claim_id, hold.fence, reason=why))
        if kind == "collected":  # nobody is left to lose it
            return
        self._counters.add("lost")
        text = f"the hold of {hold.name!r} (fence {hold.fence}) may have lapsed: {LOSSES.get(why, why)}"
        self._dispatcher.tell(Alert("lost", "P1", text, hold.name, hold.claim_id))

    def _ended(self, kind: str, attempt: Attempt) -> None:
        if self._dispatcher.wants(kind):
            holder = str(attempt.holder.owner) if attempt.holder else None
            self._dispatcher.tell(Event(kind, attempt.terms.name, data={"holder": holder}))
