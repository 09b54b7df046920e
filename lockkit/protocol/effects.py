"""The effects that a protocol generator asks its driver to perform.

A driver performs an effect and sends the result back, or throws the exception that it met: :class:`~lockkit.store.spi.Refused`
and :class:`~lockkit.store.spi.Unknown` from a request, any ``BaseException`` that cut the step short. The generators read no clock,
start no thread and open no socket; ``now`` is handed to them.

Effects are of three kinds. A :data:`Request` goes to the store (:func:`lockkit.protocol.running.ask`), and takes at most its
``budget``, in seconds. A :data:`Wait` takes as long as it says. All others never block.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from lockkit.facts import Alert, ClaimInfo, Event, Reason
from lockkit.hold import Hold
from lockkit.store.spi import Beat, Claim

__all__ = [
    "REQUESTS",
    "WAITS",
    "Abandon",
    "Acquire",
    "AwaitHook",
    "Effect",
    "EmergencyRelease",
    "GoOn",
    "Inspect",
    "Lost",
    "Notify",
    "Now",
    "Orphan",
    "Pause",
    "RecordFailure",
    "Release",
    "Removing",
    "Renew",
    "Request",
    "StartHook",
    "Wait",
    "WaitForWake",
    "Withdraw",
]

Now: TypeAlias = Callable[[], float]
"""CLOCK_BOOTTIME seconds."""


class Acquire(NamedTuple):
    """Ask for a claim, and append it to its queue if ``create``. Result: an :data:`~lockkit.store.spi.Answer`."""

    claim: Claim
    create: bool
    budget: float


class Renew(NamedTuple):
    """Renew a batch of claims. Result: a :class:`~lockkit.store.spi.Renewal` for each."""

    beats: Sequence[Beat]
    budget: float


class Release(NamedTuple):
    """Compare and remove a claim. Result: RELEASED or ABSENT."""

    claim: Claim
    budget: float
    graceful: bool = True


class Abandon(NamedTuple):
    """Remove a claim of which an acquire may still be under way. Result: as of :class:`Release`."""

    claim: Claim
    budget: float
    graceful: bool = True


class EmergencyRelease(NamedTuple):
    """Compare and remove a claim over a connection of its own. Result: as of :class:`Release`."""

    claim: Claim
    budget: float
    graceful: bool = True


class Inspect(NamedTuple):
    """Read the queue of a name. Result: a :class:`~lockkit.facts.LockInfo`."""

    name: str
    budget: float


Removing: TypeAlias = Release | Abandon | EmergencyRelease
Request: TypeAlias = Acquire | Renew | Removing | Inspect
"""An effect that asks the store."""
REQUESTS = (Acquire, Release, Renew, Abandon, EmergencyRelease, Inspect)


class WaitForWake(NamedTuple):
    """Wait until the claim's watch or heartbeat wakes it, or ``until``; the heartbeat renews it meanwhile.

    ``until`` is CLOCK_BOOTTIME seconds, None for no limit. Result: None.
    """

    claim: Claim
    blockers: tuple[str, ...]
    until: float | None
    position: int = 0
    holder: ClaimInfo | None = None


class Pause(NamedTuple):
    """Wait a moment before asking again. Result: None."""

    until: float


class Withdraw(NamedTuple):
    """Take the claim out of the heartbeat for good; when this returns nothing renews it. Result: None."""

    claim: Claim


class Orphan(NamedTuple):
    """Remove the claim in the background until the answer is definite, not before ``after``. Never blocks or fails."""

    claim: Claim
    abandon: bool
    graceful: bool
    after: float = 0.0

    def request(self, budget: float) -> "Release | Abandon":
        """The request that removes it."""
        return (Abandon if self.abandon else Release)(self.claim, budget, self.graceful)


class Lost(NamedTuple):
    """A hold was declared lost just now: tell plugins, counters and its own callbacks, once. Never blocks or fails."""

    hold: Hold
    why: Reason


class GoOn(NamedTuple):
    """Go on with a release that was cut short, on a thread of its own, unless a thread works at it. Never blocks or fails."""

    hold: Hold


class StartHook(NamedTuple):
    """Start one cleanup hook on a thread of its own, with a budget, unless it has been started. Result: None.

    Starting a hook twice is starting it once, so whoever was interrupted asks again.
    """

    plugin: str
    budget: float


class AwaitHook(NamedTuple):
    """Wait for a hook that was started, until its budget is over; or only look, without ``wait``. Result: a HookReport."""

    plugin: str
    wait: bool = True


class RecordFailure(NamedTuple):
    """Write a critical-failure record, fsynced. Never fails. Result: None."""

    record: Mapping[str, object]


class Notify(NamedTuple):
    """Tell plugins and counters. Never blocks or fails. Result: None."""

    what: Event | Alert


Wait: TypeAlias = WaitForWake | Pause | AwaitHook
"""An effect that takes its time."""
WAITS = (WaitForWake, Pause, AwaitHook)
Effect: TypeAlias = Request | Wait | Withdraw | Orphan | StartHook | RecordFailure | Notify | Lost | GoOn
