"""What a protocol generator can ask of whoever drives it.

A driver performs the effect and sends the result back, or throws the exception that it met: :class:`~lockkit.store.spi.Refused`
and :class:`~lockkit.store.spi.Unknown` from a call, any ``BaseException`` that cut the step short. The generators read no clock,
start no thread and open no socket; ``now`` is handed to them.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from lockkit.facts import Alert, ClaimInfo, Event, Reason
from lockkit.hold import Hold
from lockkit.store.spi import Claim

__all__ = [
    "AwaitHook",
    "Call",
    "Effect",
    "Lost",
    "Notify",
    "Now",
    "Orphan",
    "Pause",
    "RecordFailure",
    "StartHook",
    "WaitForWake",
    "Withdraw",
]

Now: TypeAlias = Callable[[], float]
"""CLOCK_BOOTTIME seconds."""
_NO_KEYWORDS: Mapping[str, Any] = {}


class Call(NamedTuple):
    """Call ``method`` of the store with ``args``, a budget in seconds, and keywords. Result: its answer."""

    method: str
    args: tuple[Any, ...]
    budget: float
    keywords: Mapping[str, Any] = _NO_KEYWORDS


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


class Lost(NamedTuple):
    """A hold was declared lost just now: tell plugins, counters and its own callbacks, once. Never blocks or fails."""

    hold: Hold
    why: Reason


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


Effect: TypeAlias = (
    Call | WaitForWake | Pause | Withdraw | Orphan | StartHook | AwaitHook | RecordFailure | Notify | Lost
)
