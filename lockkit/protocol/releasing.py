"""Release: three layers (cleanup, normal, emergency), each run once, even if the release is interrupted.

    HELD -> cleanup -> normal -> emergency -> RELEASED | LOST | ABANDONED(expires_by)

The progress is kept in a :class:`Pipeline`, not in the generator. Ctrl-C may raise between any two bytecodes
and so end the generator itself; a new generator over the same Pipeline then goes on where the old one was, in
the same thread or another. Cleanup hooks are identified by plugin: no hook runs twice, and a hook whose start
was interrupted is started again. Sending a release twice is harmless, because the store compares the token.
The reports of the emergency layer and of an abandoned release may come twice, but are not lost.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, Literal

from lockkit.errors import OutcomeUnknown
from lockkit.facts import (
    Alert,
    Event,
    HookReport,
    LayerReport,
    Reason,
    ReleaseOutcome,
    ReleaseReport,
)
from lockkit.lib.namedtuples import made
from lockkit.protocol.effects import (
    Abandon,
    AwaitHook,
    Effect,
    EmergencyRelease,
    Lost,
    Notify,
    Now,
    Orphan,
    Pause,
    RecordFailure,
    Release,
    Removing,
    StartHook,
)
from lockkit.protocol.hold import Hold
from lockkit.store.spi import RELEASED, REQUEST_TIMEOUT, Claim, End, Refused, Unknown
from lockkit.values.names import claim_id

__all__ = ["CLEANUP_BUDGET", "PATIENCE", "Pipeline", "layers_of", "releasing"]

CLEANUP_BUDGET = 10.0
"""Seconds that one cleanup hook may take, unless configured."""
PATIENCE = 16
"""Interruptions of a release after which its thread leaves the release to another thread."""
_NORMAL_SHARE = 0.65
"""The share of the request timeout that the normal layer may use; the emergency layer has the rest."""
_PAUSE = 0.05
_CUTS = 2
"""Interruptions after which a release no longer waits for a hook."""


class Pipeline:
    """One release under way.

    Attributes:
        plugins: Cleanup hooks to run, by plugin name, in order.
        request_timeout: Seconds that all requests may take.
        hooks: The reports of the hooks that have run.
        cleaned: Seconds that all hooks took; None until all have been run.
        was_valid: Whether the hold was still valid when it was ended.
        ended_at: CLOCK_BOOTTIME seconds at which it was ended, before the first request.
        how: How the claim ends.
        normal: The report of the normal layer; None until that is over. ``emergency`` is alike.
        doubtful: Whether the store may have executed a request whose answer was not read.
        outcome: None until an answer was definite.
        refusals: How many release requests the store answered with an error that no repetition ends.
        stolen: Whether the claim was gone although the hold was still valid.
        untold: The reason of a loss that is still to be reported; empty if there is none.
        asked: Whether a request is under way, which the store may execute even if its answer is not read.
        recorded: Whether the critical-failure record is written.
        emergency_told: Whether the emergency layer has been reported.
        interrupts: Exceptions (Ctrl-C, cancellation) that interrupted it; the driver raises the first.
    """

    __slots__ = (
        "asked", "cleaned", "cleanup_budget", "doubtful", "emergency", "emergency_told", "ended_at", "errors",
        "hold", "hooks", "how", "interrupts", "normal", "outcome", "plugins", "reason", "recorded",
        "refusals", "request_timeout", "stolen", "untold", "was_valid",
    )  # fmt: skip

    def __init__(
        self,
        hold: Hold,
        reason: Reason,
        plugins: Sequence[str] = (),
        cleanup_budget: float = CLEANUP_BUDGET,
        request_timeout: float = REQUEST_TIMEOUT,
    ) -> None:
        self.hold = hold
        self.reason = reason
        self.plugins = plugins
        self.cleanup_budget = cleanup_budget
        self.request_timeout = request_timeout
        self.hooks: list[HookReport] = []
        self.errors: list[BaseException] = []
        self.interrupts: list[BaseException] = []
        self.cleaned: float | None = None
        self.was_valid: bool | None = None
        self.ended_at = 0.0
        self.how: End = "released"
        self.normal: LayerReport | None = None
        self.emergency: LayerReport | None = None
        self.outcome: ReleaseOutcome | None = None
        self.doubtful = self.stolen = self.asked = self.recorded = self.emergency_told = False
        self.refusals = 0
        self.untold: Reason = ""

    @property
    def until(self) -> float:
        """CLOCK_BOOTTIME seconds until which the holder was certain to hold."""
        return min(self.ended_at, self.hold.expires)


def releasing(release: Pipeline, now: Now) -> Generator[Effect, Any, ReleaseReport]:
    """Run a release from the point that it has reached to its end.

    Failures are in the report, and interruptions in ``release.interrupts``; no failure of the store raises.
    """
    hold = release.hold
    if release.plugins and release.cleaned is None:
        yield from _clean(release, now)
    if release.was_valid is None:
        at = now()
        was_valid = not hold.ended and not hold.lost_why and at < hold.expires
        if not was_valid:
            why = hold.overdue(at)
            if why and hold.lose(why):
                release.untold = why
        release.ended_at = at
        release.was_valid = was_valid
    if release.untold:
        yield Lost(hold, release.untold)
        release.untold = ""
    release.how = hold.end()  # from here on it is not valid, and the heartbeat leaves it out (S9)
    if release.outcome is None and release.normal is None:
        remove = Abandon if hold.doubtful else Release
        budget = _NORMAL_SHARE * release.request_timeout
        release.normal = yield from _remove(release, now, "normal", remove, budget)
    if release.outcome is None and release.emergency is None:
        budget = (1.0 - _NORMAL_SHARE) * release.request_timeout
        release.emergency = yield from _remove(release, now, "emergency", EmergencyRelease, budget)
    if release.emergency is not None and not release.emergency_told:
        yield Notify(Event("emergency", hold.name, hold.claim_id, hold.fence, reason=release.reason))
        yield Notify(_alert(release, "emergency_release", "P1", "its normal release got no definite answer"))
        release.emergency_told = True
    if release.outcome is None:
        yield from _abandon(release, now)
    if release.stolen:
        yield Notify(
            _alert(release, "ownership_violation", "P1", "its claim was gone while it was still valid")
        )
    cleanup = _cleanup_layer(release) if release.hooks else None
    layers = tuple(filter(None, (cleanup, release.normal, release.emergency)))
    outcome, expires_by = release.outcome or "ABANDONED", None
    if outcome == "ABANDONED" and not hold.process_bound:
        expires_by = hold.since_wall + (hold.expires - hold.since)
    name, id_, errors = hold.claim.terms.name, claim_id(hold.claim.token), tuple(release.errors)
    hold.report = made(
        ReleaseReport, (name, id_, hold.fence, outcome, release.reason, layers, expires_by, errors)
    )
    for level in hold.levels:
        level.over()
    return hold.report


def layers_of(release: Pipeline) -> dict[str, dict[str, object]]:
    """The ended layers of a release, for an event: the outcome of each, and the seconds that it took."""
    cleanup = _cleanup_layer(release) if release.hooks else None
    layers = filter(None, (cleanup, release.normal, release.emergency))
    return {
        report.layer: {"outcome": report.outcome, "seconds": round(report.duration, 6)} for report in layers
    }


def _clean(release: Pipeline, now: Now) -> Generator[Effect, Any, None]:
    """Layer 1: every hook once, while the heartbeat still renews."""
    began = now()
    for plugin in release.plugins[len(release.hooks) :]:
        report = yield from _run(release, plugin)
        release.hooks.append(report)
        told = {"plugin": plugin, "outcome": report.outcome, "error": report.error}
        yield Notify(
            Event(
                "cleanup",
                release.hold.name,
                release.hold.claim_id,
                release.hold.fence,
                duration=report.duration,
                data=told,
            )
        )
        if report.outcome == "RUNNING":
            yield Notify(_alert(release, "cleanup_overrun", "P1", f"cleanup {plugin!r} overran its budget"))
    release.cleaned = now() - began


def _run(release: Pipeline, plugin: str) -> Generator[Effect, Any, HookReport]:
    """Start a hook, again if the start was interrupted, and wait for the hook to end.

    The first Ctrl-C while the hook runs is kept for the end of the release; the hook may use up its budget. A
    second one ends the wait; the hook goes on in its own thread.
    """
    interrupts = release.interrupts
    started = False
    cut = 0
    while True:
        try:
            if not started:
                yield StartHook(plugin, release.cleanup_budget)
                started = True
            report: HookReport = yield AwaitHook(plugin, cut < _CUTS)
        except GeneratorExit:
            # No interruption: the driver closes this generator, and another one resumes the release.
            raise
        except BaseException as interrupt:
            interrupts.append(interrupt)
            if len(interrupts) > PATIENCE:
                raise
            cut += started
            continue
        if report.outcome == "RUNNING" and cut >= _CUTS:
            return report._replace(
                outcome="UNKNOWN", error=f"still running when interrupted: {interrupts[-1]!r}"
            )
        return report


def _remove(
    release: Pipeline,
    now: Now,
    layer: Literal["normal", "emergency"],
    remove: Callable[[Claim, float, End], Removing],
    budget: float,
) -> Generator[Effect, Any, LayerReport]:
    """Layers 2 and 3: compare-and-remove, replayed while the outcome is unknown and budget remains."""
    hold = release.hold
    if budget <= 0.0:
        return LayerReport(layer, "SKIPPED", error="no time was left for a request")
    began = at = now()
    end = began + budget
    error: BaseException | None = None
    release.doubtful = release.doubtful or release.asked
    while True:
        release.asked = True
        try:
            answer = yield made(remove, (hold.claim, max(end - at, 0.05), release.how))
        except (Refused, Unknown) as trouble:
            error = trouble.error
            if isinstance(trouble, Refused):
                release.asked = False
            else:
                release.doubtful = True
            if not trouble.retry:
                release.refusals += 1
                break
        except GeneratorExit:
            raise
        except BaseException as interrupt:
            # Replace the interruption: the report would keep its traceback, and so the program's frames.
            error = OutcomeUnknown(f"the request was interrupted by {interrupt!r}", name=hold.name)
            release.interrupts.append(interrupt)
            release.doubtful = True
            if len(release.interrupts) > 2:
                break
        else:
            if answer == RELEASED:
                release.outcome = "RELEASED"
                return made(LayerReport, (layer, "DONE", now() - began, None, ()))
            release.outcome = _absent(release, now())
            return LayerReport(layer, "ABSENT", now() - began)
        at = now()
        if at + _PAUSE >= end:
            break
        try:
            yield Pause(at + _PAUSE)
        except GeneratorExit:
            raise
        except BaseException as interrupt:
            release.interrupts.append(interrupt)
        at = now()
    if error is not None:
        release.errors.append(error)
    return LayerReport(layer, "UNKNOWN" if release.doubtful else "FAILED", now() - began, str(error))


def _absent(release: Pipeline, at: float) -> ReleaseOutcome:
    """LOST for a claim that is gone; RELEASED if a doubtful request may have removed a valid hold."""
    if release.doubtful and release.was_valid:
        return "RELEASED"
    # An interrupted release may have been resumed only after the claim had run out. That is no theft.
    release.stolen = bool(release.was_valid) and at < release.hold.expires
    return "LOST"


def _abandon(release: Pipeline, now: Now) -> Generator[Effect, Any, None]:
    """Leave a release without a definite answer to the background, and record a critical failure."""
    hold = release.hold
    yield Orphan(hold.claim, abandon=True, how=release.how)
    errors = [f"{type(error).__name__}: {error}" for error in release.errors]
    if not release.recorded:
        yield RecordFailure(
            {
                "name": hold.name,
                "claim": hold.claim_id,
                "fence": hold.fence,
                "reason": release.reason,
                "owner": str(hold.owner),
                "host": hold.owner.host,
                "pid": hold.owner.pid,
                "task": hold.owner.task,
                "errors": errors,
                "expires_in_seconds": max(0.0, hold.expires - now()),
            }
        )
        release.recorded = True
    told = {"layers": layers_of(release)}
    event = Event("abandoned", hold.name, hold.claim_id, hold.fence, reason=release.reason, data=told)
    yield Notify(event._replace(until=release.until))
    yield Notify(
        _alert(release, "critical_failure", "P0", f"no release layer got an answer: {'; '.join(errors)}")
    )
    # Last, so that a release interrupted above is resumed here: a report may come twice, but none is lost.
    release.outcome = "ABANDONED"


def _cleanup_layer(release: Pipeline) -> LayerReport:
    """One report for all hooks, with the outcome of the first hook that failed."""
    hooks = tuple(release.hooks)
    bad = next((hook for hook in hooks if hook.outcome not in ("DONE", "NOTHING", "SKIPPED")), None)
    outcome, error = (bad.outcome, bad.error) if bad else ("DONE", None)
    return LayerReport("cleanup", outcome, release.cleaned or 0.0, error, hooks)


def _alert(release: Pipeline, kind: str, priority: Literal["P0", "P1", "P2"], what: str) -> Alert:
    hold = release.hold
    return Alert(
        kind, priority, f"the release of {hold.name!r} (fence {hold.fence}): {what}", hold.name, hold.claim_id
    )
