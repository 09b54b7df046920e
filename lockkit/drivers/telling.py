"""Count how attempts and releases end, and report them and losses to plugins, callbacks and the log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from lockkit.drivers.dispatch import Dispatcher
from lockkit.errors import AcquireCancelled, AcquireTimeout
from lockkit.facts import LOSSES, Alert, Event, Reason, ReleaseRequest
from lockkit.lib.caller import shown
from lockkit.lib.clock import Clock
from lockkit.protocol.attempt import Attempt
from lockkit.protocol.denials import held_at, held_claim
from lockkit.protocol.effects import with_terms
from lockkit.protocol.hold import Hold
from lockkit.protocol.releasing import Pipeline, layers_of
from lockkit.protocol.together import Together
from lockkit.values.events import Counters

__all__ = ["Telling"]


class Telling:
    """Counts how attempts and releases end, and reports them.

    Args:
        look_soon: Arranges for callbacks to be called later if no thread can be started for them now.
    """

    def __init__(
        self, counters: Counters, dispatcher: Dispatcher, clock: Clock, look_soon: Callable[[], None]
    ) -> None:
        self._counters = counters
        self._dispatcher = dispatcher
        self._clock = clock
        self._look_soon = look_soon

    def acquired(self, attempt: Attempt, hold: Hold) -> None:
        """Report a grant."""
        waited = self._clock.now() - attempt.start
        data = {"ttl": hold.ttl, "max_hold": hold.claim.terms.max_hold}
        event = Event("acquired", hold.name, hold.claim_id, hold.fence, duration=waited, data=data)
        self._dispatcher.tell(with_terms(event, hold.claim.terms))

    def busy(self, attempt: Attempt) -> None:
        """Count and report an attempt that was refused."""
        self._counters.add("busy")
        self._ended("busy", attempt)

    def failed(self, attempt: Attempt, error: BaseException) -> None:
        """Count an attempt that ended in an exception, and report it if its time was up."""
        if isinstance(error, AcquireTimeout):
            self._counters.add("timeouts")
            self._ended("timeout", attempt)
        elif isinstance(error, AcquireCancelled) or not isinstance(error, Exception):
            self._counters.add("cancelled")
            self._ended("cancelled", attempt, error)
        else:
            self._counters.add("failed")
            self._ended("failed", attempt, error)

    def together(
        self, together: Together, got: Sequence[Attempt], error: BaseException | None = None
    ) -> None:
        """Count and report the end of an acquisition of several: each lock got, or the one that failed."""
        steps = self._counters.steps
        for attempt in got:
            next(steps["attempts"])
            next(steps["acquired"])
            if attempt.hold is not None:
                self.acquired(attempt, attempt.hold)
        if not got and together.current is not None:
            next(steps["attempts"])
            if error is None:
                self.busy(together.current)
            else:
                self.failed(together.current, error)

    def released(self, release: Pipeline) -> None:
        """Report a release that the store confirmed."""
        hold = release.hold
        held = self._clock.now() - hold.since
        data = {"layers": layers_of(release)}
        event = Event("released", hold.name, hold.claim_id, hold.fence, release.reason, duration=held)
        self._dispatcher.tell(event._replace(data=data, until=release.until))

    def absent(self, release: Pipeline) -> None:
        """Report a release that found its claim gone."""
        if self._dispatcher.wants("absent"):
            hold = release.hold
            data = {"stolen": release.stolen or None, "layers": layers_of(release)}
            event = Event("absent", hold.name, hold.claim_id, hold.fence, release.reason, data=data)
            self._dispatcher.tell(event._replace(until=release.until))

    def trouble(self, release: Pipeline) -> None:
        """Count the failures of a release."""
        if release.refusals:
            self._counters.add("release_script_errors", release.refusals)
        if release.emergency is not None:
            self._counters.add("normal_release_failures")
            self._counters.add("emergency_releases")
        if release.stolen:
            self._counters.add("ownership_violations")

    def lost(self, hold: Hold, why: Reason) -> None:
        """Count the loss, have the on_lost callbacks called, and report the loss."""
        kind = why if why in ("max_hold", "collected") else "lost"
        handed_out = hold.in_hand  # not the gate of a pool, nor what a request for several has got so far
        if kind != "collected":
            if handed_out:
                self._counters.add("lost")
            # Callbacks come before reports, because they stop the work that the lock protects.
            for callback in hold.callbacks:
                self._dispatcher.run(callback, hold.name)
            self._look_soon()  # in case no thread could be started
        data = {"taken_at": shown(hold.taken_at) or None}
        until = min(hold.expires, self._clock.now())
        event = Event(kind, hold.name, hold.claim_id, hold.fence, reason=why, data=data, until=until)
        self._dispatcher.tell(event)
        if kind == "collected" or not handed_out:  # nobody works under the hold, so this is no loss
            return
        text = f"the hold of {hold.name!r} (fence {hold.fence}) may have lapsed: {LOSSES.get(why, why)}"
        self._dispatcher.tell(Alert("lost", "P1", text, hold.name, hold.claim_id))

    def asked(self, hold: Hold, requests: Sequence[ReleaseRequest]) -> None:
        """Have the on_release_requested callbacks called, and report the requests."""
        for request in requests:
            for callback in hold.asked_callbacks:
                self._dispatcher.run(partial(callback, request), hold.name)
            data = {"by": request.by}
            event = Event(
                "release_requested", hold.name, hold.claim_id, hold.fence, request.reason, data=data
            )
            self._dispatcher.tell(event)
        self._look_soon()  # in case no thread could be started

    def _ended(self, kind: str, attempt: Attempt, error: BaseException | None = None) -> None:
        if self._dispatcher.wants(kind):
            holder = str(attempt.holder.owner) if attempt.holder else None
            data = {
                "holder": holder,
                "holder_claim": held_claim(attempt.holder),
                "held_at": held_at(attempt.holder),
            }
            if error is not None:
                data["error"] = type(error).__name__
            waited = self._clock.now() - attempt.start if attempt.start else 0.0  # 0: it has sent nothing
            event = Event(kind, attempt.terms.name, duration=waited, data=data)
            self._dispatcher.tell(with_terms(event, attempt.terms))
