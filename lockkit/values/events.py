"""Events: the closed lists of event kinds and alert kinds, and the counters of ``client.stats()``."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Mapping

__all__ = ["ALERTS", "COUNTERS", "KINDS", "Counters", "Reader"]

KINDS: Mapping[str, str] = {
    "acquired": "A claim was granted.",
    "queued": "A claim has to wait.",
    "still_waiting": "A wait has lasted over a minute; repeated at doubling intervals. A request for some of "
    "several locks or members reports once for all of them, in `among`, and with why others will not do in "
    "`refused`.",
    "unanswered": "A wait continues although the store has not answered for a second. Reported once per "
    "outage.",
    "timeout": "A wait reached its total timeout.",
    "busy": "A claim that does not wait was refused.",
    "cancelled": "An acquisition was cut short, by Ctrl-C, a cancellation or a closed client.",
    "failed": "An acquisition ended with any other error.",
    "skipped": "A decorated function was skipped because the lock was busy.",
    "requeued": "A claim lapsed, or its grant had run out before it could be used; a new claim follows after "
    "a pause.",
    "renewal_failed": "A renewal failed or was not answered; the lease is still valid.",
    "lost": "A hold may have lapsed. Reported once per hold.",
    "max_hold": "A hold reached its max_hold and was ended.",
    "released": "The store confirmed a release.",
    "emergency": "The emergency layer of a release ran.",
    "absent": "A release found its claim gone, or another's; `stolen` says whether the lease was still "
    "valid.",
    "abandoned": "A release got no definite answer; the claim is removed in the background.",
    "removed": "The background removal of a claim got its definite answer.",
    "cleanup": "A cleanup hook ended, with or without an error.",
    "dropped": "A lease was garbage-collected without having been released: its claim is renewed no more.",
    "collected": "The validity of a dropped lease has ended, and its claim is removed.",
    "evicted": "An operator forced a claim out.",
    "release_requested": "Somebody asked the holder to release; reported by the client of the holder.",
    "resized": "An operator changed a capacity.",
    "recovered": "A recoverer removed or evicted a claim, gave back a quarantined GPU, or found that a "
    "failed release is over.",
    "overdue": "A recoverer found a hold that is older than one of the ages of the configuration; once for "
    "each age.",
    "guard_opened": "A guard registered the fence of a lease at `resource`, within the last `duration` "
    "seconds.",
    "guard_written": "A guarded `resource` accepted a write under the fence of a lease, within the last "
    "`duration` seconds.",
    "guard_refused": "A guarded `resource` refused a stale fence: that of a newer holder is registered "
    "there, or none (`stored`).",
    "gpu_cleared": "A person gave back a GPU that was quarantined; with the reason, if one was given.",
    "gpu_faulty": "A GPU that is held has shown a fault; once for each fault.",
    "gpu_idle": "A GPU that is held has been idle for `gpu.idle_after`; once until it computes again.",
    "gpu_overused": "A holder uses more memory of a GPU than it declared; reported by its own client, once "
    "until it no longer does.",
    "survivors": "A recoverer found that an owner has ended, and that its processes work on under its lock, "
    "or may do so; once for each claim.",
    "missed": "Events did not reach this plugin, because it was too slow or hung; `count` of them, in the "
    "place of this one. Each plugin is told only of its own.",
    "closed": "A client was closed: its last event.",
}
"""Every event kind, with its meaning."""

ALERTS: Mapping[str, str] = {
    "emergency_release": "P1. The normal release got no definite answer and the emergency layer ran.",
    "critical_failure": "P0. No layer of a release got a definite answer; the claim is removed in the "
    "background.",
    "ownership_violation": "P1. A release found its claim gone, or another's.",
    "cleanup_overrun": "P1. A cleanup hook overran its budget and is still running.",
    "gpu_dirty": "P2. A holder left memory of a GPU in use, or a process on it; the next holder is told.",
    "gpu_quarantined": "P1. A GPU was found faulty at its release, by a request that found it free, or by a "
    "preflight, or its driver or a framework hangs at its release: nobody gets it until it is cleared.",
    "gpu_not_quarantined": "P0. The same of a GPU that stays in use, because too many of its host are "
    "quarantined; once an hour for each GPU.",
    "lost": "P1. A hold may have lapsed while its owner was working.",
    "recovered": "P2. A recoverer removed the claim of a dead owner, or evicted one that is not renewed.",
    "overdue": "P2. A hold is older than age_soft (P1: than age_hard) and its owner may be at work, so "
    "nothing was done.",
    "survivors": "P1. Processes work on, or may work on, under a lock whose owner has ended.",
    "gpu_faulty": "P1. A GPU that is held has shown a fault.",
    "gpu_idle": "P2. A GPU that is held has been idle for `gpu.idle_after`.",
    "recovery_limited": "P1. A recoverer has reached recover_limit, so further claims wait.",
}
"""Every alert kind, with its priority and meaning."""

COUNTERS: Mapping[str, str] = {
    "attempts": "Acquisitions that began.",
    "acquired": "Acquisitions that were granted.",
    "busy": "Acquisitions that were refused at once.",
    "timeouts": "Acquisitions that ran out of time.",
    "cancelled": "Acquisitions cut short by an exception (Ctrl-C, cancellation) or by a closed client.",
    "failed": "Acquisitions that ended with any other error.",
    "released": "Releases that the store confirmed.",
    "lost": "Holds that may have lapsed.",
    "skipped": "Calls of decorated functions that were skipped.",
    "ran_unlocked": 'Tasks with `on_unavailable="run"` that ran without their lock, because the store could '
    "not be used.",
    "renewals": "Renewals of single claims.",
    "events_dropped": "Events dropped because a plugin was too slow, or hung until its client was closed, or "
    "because the event journal could not be written; each counts once for each such plugin.",
    "alerts_dropped": "Alerts dropped for the same reasons as events.",
    "hooks_hanging": "Event and alert hooks that had not returned after 10 s; they are not called until they "
    "return.",
    "normal_release_failures": "Releases whose normal layer got no definite answer.",
    "emergency_releases": "Releases whose emergency layer ran.",
    "release_script_errors": "Release requests that the store answered with an error that no repetition "
    "ends, such as a missing right or another layout. A store that cannot be reached, or not now, is none.",
    "ownership_violations": "Releases that found another's claim or none while the lease was valid, or "
    "through a copy of a lease or a name. A hold that had expired before is none.",
}
"""Every counter, with its exact meaning. ``attempts`` is the sum of ``acquired``, ``busy``, ``timeouts``,
``cancelled`` and ``failed``, plus the attempts that are still under way."""


class Counters:
    """Thread-safe counters, one for each of :data:`COUNTERS`, starting at 0.

    Counting by one takes no lock, because ``next`` on an :class:`itertools.count` is a single step. The
    counter's repr has the number, the only way to read it without incrementing it.

    Attributes:
        steps: Counts one more each time that ``next`` is called on it, by name; for those who count often.
    """

    def __init__(self) -> None:
        self.steps = {name: itertools.count() for name in COUNTERS}
        self._lock = threading.RLock()
        self._more = dict.fromkeys(COUNTERS, 0)

    def add(self, name: str, by: int = 1) -> None:
        if by == 1:
            next(self.steps[name])
            return
        with self._lock:
            self._more[name] += by

    def read(self) -> dict[str, int]:
        with self._lock:
            return {name: int(repr(steps)[6:-1]) + self._more[name] for name, steps in self.steps.items()}

    def reader(self) -> Reader:
        """A reader of these counters, for one who keeps it longer than they live."""
        return Reader(self)


class Reader:
    """Reads a client's counters, even after the client is gone. Equal to other readers of these counters."""

    def __init__(self, counters: Counters) -> None:
        kept = Counters.__new__(Counters)
        kept.__dict__.update(counters.__dict__)  # what counts is shared, the object is not
        self._kept = kept
        self._alive = weakref.ref(counters)

    def __call__(self) -> dict[str, int]:
        return self._kept.read()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reader) and self._kept.steps is other._kept.steps

    def __hash__(self) -> int:
        return id(self._kept.steps)

    @property
    def final(self) -> bool:
        """Whether nothing counts any more, because the counters are gone."""
        return self._alive() is None
