"""The log message of each event: one sentence, on one row, that can be read without the code."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lockkit.facts import LOSSES, Event
from lockkit.protocol import denials
from lockkit.values import durations

__all__ = ["SENTENCES", "sentence"]


def sentence(event: Event) -> str:
    """The log message of an event."""
    make = SENTENCES.get(event.kind)
    text = f"{event.kind.replace('_', ' ')}: {event.name!r}" if make is None else make(event)
    return " ".join(map(str.strip, text.splitlines()))  # an error's text may have several rows


def _claim(event: Event) -> str:
    """The claim of an event, in brackets: `` (claim 0123456789ab, fence 7)``; empty if there is none."""
    fence = "" if event.fence is None else f", fence {event.fence}"
    return f" (claim {event.claim_id}{fence})" if event.claim_id else ""


def _named(event: Event) -> str:
    return f" of {event.name!r}" if event.name else ""


def _time(event: Event) -> str:
    return durations.show(event.duration or 0.0)


def _told(event: Event, key: str, before: str) -> str:
    """A part of a sentence that is left out if the event does not have its value."""
    value = event.data.get(key)
    return "" if value in (None, "") else f"{before}{value}"


def _behind(event: Event, before: str) -> str:
    """The claim in the way, and where this process or the program around this one acquired it, if one did."""
    here = _told(event, "held_at", ", this very process, which acquired it at ")
    here = here or denials.around(event.data.get("holder_claim"))
    return f"{_told(event, 'holder', before)}{here}"


def _ahead(event: Event) -> str:
    """The queue ahead of a waiting claim: `` behind ann@box pid 4711 (sleep), with 2 claims ahead``."""
    ahead = event.data.get("position")
    number = f", with {ahead} {'claim' if ahead == 1 else 'claims'} ahead" if ahead else ""
    return f"{_behind(event, ', behind ')}{number}"


def _queued(event: Event) -> str:
    return f"the claim for {event.name!r} waits in the queue{_ahead(event)}{_claim(event)}"


def _still_waiting(event: Event) -> str:
    if "wanted" in event.data:
        return (
            f"still waiting for {_some(event)} after {_time(event)}"
            f"{_behind(event, ', behind ')}{_claim(event)}{_refused(event)}"
        )
    return f"still waiting for {event.name!r} after {_time(event)}{_ahead(event)}{_claim(event)}"


def _some(event: Event) -> str:
    """The locks that a request for some of several waits for: ``2 of 'a', 'b', 'c' (has 1)``."""
    got = event.data.get("got")
    return f"{event.data['wanted']} of {event.data.get('among')}{f' (has {got})' if got else ''}"


def _refused(event: Event) -> str:
    refused = event.data.get("refused")
    return denials.reasons_tail(refused) if isinstance(refused, Mapping) else ""


def _unanswered(event: Event) -> str:
    error = _told(event, "error", ": ")
    return (
        f"the store has not answered for {_time(event)}, and the wait for {event.name!r} goes on"
        f"{_claim(event)}{error}"
    )


def _lost(event: Event) -> str:
    why = LOSSES.get(event.reason, event.reason)
    return (
        f"the hold of {event.name!r}{_taken(event)} may have lapsed{_claim(event)}: {why}; "
        "stop the guarded work"
    )


def _taken(event: Event) -> str:
    place = event.data.get("taken_at")
    return f", acquired at {place}," if place else ""


def _dropped(event: Event) -> str:
    return (
        f"the lease of {event.name!r}{_taken(event)} was dropped without a release{_claim(event)}: "
        "nothing refers to it any more, so it is not renewed, and another client gets the lock when its "
        "ttl is over; keep the lease as long as you need the lock: with lock.acquire() as lease: ..."
    )


def _collected(event: Event) -> str:
    return (
        f"the hold of {event.name!r}{_taken(event)} is over{_claim(event)}: its lease was dropped "
        "without a release, and another client may get the lock now"
    )


def _cleanup(event: Event) -> str:
    how = {"DONE": "is done", "FAILED": "failed", "RUNNING": "still runs"}.get(
        str(event.data.get("outcome")), f"ended: {event.data.get('outcome')}"
    )
    error = _told(event, "error", ": ")
    return (
        f"the cleanup hook {event.data.get('plugin')!r} of {event.name!r} {how} after {_time(event)}"
        f"{_claim(event)}{error}"
    )


def _requeued(event: Event) -> str:
    why = (
        "its grant ran out before it could be used"
        if event.reason == "over"
        else f"it ended ({event.reason})"
    )
    return f"the claim for {event.name!r} goes to the end of the queue again{_claim(event)}: {why}"


def _gpu(event: Event) -> str:
    """The card and its holder: ``'...', GPU 0 (NVIDIA H100), held by ann@box pid 4711 (claim ...),``."""
    return f"{event.name!r}{_told(event, 'gpu', ', ')}{_told(event, 'holder', ', held by ')}{_claim(event)},"


SENTENCES: Mapping[str, Callable[[Event], str]] = {
    "acquired": lambda event: f"acquired {event.name!r} after {_time(event)}{_claim(event)}",
    "queued": _queued,
    "still_waiting": _still_waiting,
    "unanswered": _unanswered,
    "timeout": lambda event: (
        f"gave up the wait for {event.name!r}, because its timeout is over{_behind(event, ', behind ')}"
    ),
    "busy": lambda event: f"{event.name!r} is busy{_behind(event, ', held by ')}",
    "cancelled": lambda event: (
        f"the attempt to acquire {event.name!r} was cut short after {_time(event)}"
        f"{_told(event, 'error', ': ')}"
    ),
    "failed": lambda event: (
        f"the attempt to acquire {event.name!r} failed after {_time(event)}{_told(event, 'error', ': ')}"
    ),
    "skipped": lambda event: f"skipped a call, because {event.name!r} is busy{_behind(event, ', held by ')}",
    "requeued": _requeued,
    "renewal_failed": lambda event: (
        f"could not renew the hold of {event.name!r}, which is still valid{_claim(event)}"
        f"{_told(event, 'error', ': ')}"
    ),
    "lost": _lost,
    "max_hold": lambda event: (
        f"the hold of {event.name!r}{_taken(event)} was ended, because its max_hold is over{_claim(event)}"
    ),
    "released": lambda event: f"released {event.name!r} after {_time(event)}{_claim(event)}: {event.reason}",
    "emergency": lambda event: (
        f"the normal release of {event.name!r} got no definite answer, and the emergency release ran"
        f"{_claim(event)}"
    ),
    "absent": lambda event: (
        f"the release of {event.name!r} found its claim gone{_claim(event)}"
        f"{', although its lease was still valid' if event.data.get('stolen') else ''}"
    ),
    "abandoned": lambda event: (
        f"the release of {event.name!r} got no definite answer{_claim(event)}: the claim is removed in the "
        "background, and lapses by itself"
    ),
    "removed": lambda event: f"the claim for {event.name!r} was removed in the background{_claim(event)}",
    "cleanup": _cleanup,
    "dropped": _dropped,
    "collected": _collected,
    "evicted": lambda event: (
        f"evicted the claim for {event.name!r}{' at once' if event.data.get('now') else ''}{_claim(event)}"
        f"{_told(event, 'by', ', by ')}: {event.reason}"
    ),
    "release_requested": lambda event: (
        f"asked to release {event.name!r}{_claim(event)}{_told(event, 'by', ', by ')}: {event.reason}"
    ),
    "resized": lambda event: (
        f"resized {event.name!r} to capacity {event.data.get('capacity')}, with {event.data.get('claims')} "
        "claims in its queue"
    ),
    "recovered": lambda event: (
        f"recovered {event.name!r}{_claim(event)}{_told(event, 'outcome', ', ')}: {event.reason}"
    ),
    "overdue": lambda event: f"the hold of {event.name!r} is old{_claim(event)}: {event.reason}",
    "guard_opened": lambda event: (
        f"{event.data.get('resource')} was opened under {event.name!r}{_claim(event)}"
    ),
    "guard_written": lambda event: (
        f"{event.data.get('resource')} was written under {event.name!r}{_claim(event)}"
    ),
    "guard_refused": lambda event: (
        f"{event.data.get('resource')} refused a holder of {event.name!r} that came too late{_claim(event)}"
        f": {'fence ' + str(event.data['stored']) if event.data.get('stored') else 'no fence'}"
        " is registered there"
    ),
    "gpu_cleared": lambda event: (
        f"{event.name!r}{_told(event, 'uuid', ', GPU ')}, is given out again{_told(event, 'by', ', by ')}"
        f"{f': {event.reason}' if event.reason else ''}{_told(event, 'mark', '; it was ')}"
    ),
    "gpu_faulty": lambda event: f"{_gpu(event)} has shown a fault: {event.reason}",
    "gpu_idle": lambda event: f"{_gpu(event)} is idle: {event.reason}",
    "gpu_overused": lambda event: f"{_gpu(event)} is used more than declared: {event.reason}",
    "survivors": lambda event: (
        f"{event.name!r} is kept by processes that its owner left behind{_claim(event)}: {event.reason}"
    ),
    "missed": lambda event: (
        f"a plugin has missed events{_named(event)}{_claim(event)}{_told(event, 'count', ': ')}"
    ),
    "closed": lambda event: f"a client was closed{_named(event)}{_claim(event)}",
}
"""A function for each kind of event."""
