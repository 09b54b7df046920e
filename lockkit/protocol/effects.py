"""The effects that a protocol generator asks its driver to perform.

A driver performs an effect and sends its result back into the generator, or throws the exception that the
effect raised: :class:`~lockkit.store.spi.Refused` or :class:`~lockkit.store.spi.Unknown` from a request, or
any ``BaseException`` that interrupted the effect. The generators read no clock, start no thread and open no
socket; they get ``now`` as an argument.

There are four kinds of effects. A :data:`Request` goes to the store (:func:`lockkit.protocol.running.ask`)
and takes at most its ``budget``, in seconds. A :data:`Choice <CHOICES>` asks an object of the user
(:func:`lockkit.protocol.running.ask_chooser`), within its ``budget`` as well. A :data:`Wait` may block until
the time that it names. All other effects never block. Choices, :class:`WaitForAny` and :class:`Keep` come
only from acquisitions of several locks (:mod:`lockkit.protocol.composing`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from lockkit.facts import Alert, ClaimInfo, Event, Reason, ReleaseRequest
from lockkit.lib.namedtuples import NamedTuple
from lockkit.protocol.hold import Hold
from lockkit.store.spi import Beat, Claim, End, Removal, Terms

if TYPE_CHECKING:
    from lockkit.values.choosers import Chooser

__all__ = [
    "CHOICES",
    "MAY_BLOCK",
    "ON_THREADS",
    "REQUESTS",
    "WAITS",
    "Abandon",
    "Acquire",
    "Annotate",
    "Asked",
    "AwaitHook",
    "Choose",
    "Effect",
    "EmergencyRelease",
    "Extend",
    "GoOn",
    "Inspect",
    "Judge",
    "Keep",
    "ListNames",
    "Lost",
    "Notify",
    "Now",
    "OnThreads",
    "Orphan",
    "Pause",
    "RecordFailure",
    "Release",
    "RemoveMany",
    "Removing",
    "Renew",
    "Request",
    "StartHook",
    "Wait",
    "WaitForAny",
    "WaitForWake",
    "Withdraw",
    "with_terms",
]

Now: TypeAlias = Callable[[], float]
"""CLOCK_BOOTTIME seconds."""


class Acquire(NamedTuple):
    """Ask for a claim; append it to its queue if ``create``. Result: an :data:`~lockkit.store.spi.Answer`."""

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
    how: End = "released"


class Abandon(NamedTuple):
    """Remove a claim whose acquire may still be under way. Result: as for :class:`Release`."""

    claim: Claim
    budget: float
    how: End = "released"


class EmergencyRelease(NamedTuple):
    """Compare and remove a claim over a connection of its own. Result: as for :class:`Release`."""

    claim: Claim
    budget: float
    how: End = "released"


class RemoveMany(NamedTuple):
    """Remove many claims, of a store that can do so at once.

    Result: for each claim None, if its answer is definite, or its Refused or Unknown.
    """

    removals: Sequence[Removal]
    budget: float


class Inspect(NamedTuple):
    """Read the queue of a name. Result: a :class:`~lockkit.facts.LockInfo`."""

    name: str
    budget: float


class ListNames(NamedTuple):
    """List the names that have claims. Result: the names."""

    budget: float


class Annotate(NamedTuple):
    """Merge a JSON patch into the note of a claim. Result: whether there is such a claim."""

    name: str
    claim_id: str
    patch: Mapping[str, object]
    budget: float


class Extend(NamedTuple):
    """Renew a claim, and keep it by its terms from now on. Result: a :class:`~lockkit.store.spi.Renewal`."""

    claim: Claim
    fence: int
    budget: float


Removing: TypeAlias = Release | Abandon | EmergencyRelease
OnThreads: TypeAlias = Inspect | ListNames | Annotate | Extend
"""A rare request, for which stores have no exchange: an event loop has it made on a thread."""
ON_THREADS = (Inspect, ListNames, Annotate, Extend)
Request: TypeAlias = Acquire | Renew | Removing | RemoveMany | OnThreads
"""An effect that asks the store."""
REQUESTS = (Acquire, Release, Renew, Abandon, EmergencyRelease, RemoveMany, *ON_THREADS)


class WaitForWake(NamedTuple):
    """Wait for a wake by the claim's watch or the heartbeat, which renews the claim, or until ``until``.

    ``until`` is CLOCK_BOOTTIME seconds, None for no limit. Result: None.
    """

    claim: Claim
    blockers: tuple[str, ...]
    until: float | None
    position: int = 0
    holder: ClaimInfo | None = None


class Pause(NamedTuple):
    """Wait until ``until`` before the next request. Result: None."""

    until: float


class WaitForAny(NamedTuple):
    """Wait until an attempt is woken or due, or a hold in ``held`` is lost; the heartbeat goes on meanwhile.

    ``waits`` has the wait of each attempt by its number. ``until`` is CLOCK_BOOTTIME seconds, None for no
    limit. Result: the numbers of the attempts that were woken or are due, if any.
    """

    waits: Mapping[int, WaitForWake | Pause]
    held: Sequence[Hold]
    until: float | None = None


class Choose(NamedTuple):
    """Ask a chooser for members, beside those ``held``. Result: a :class:`~lockkit.values.choosers.Choice`.

    The driver asks on another thread, because the chooser is code of the user that may hang. Without an
    answer within the budget it raises Refused.
    """

    chooser: Chooser
    held: tuple[str, ...]
    budget: float


class Judge(NamedTuple):
    """Ask the chooser about a granted member, like :class:`Choose`. Result: None, or why it will not do."""

    chooser: Chooser
    member: str
    budget: float


CHOICES = (Choose, Judge)
"""The effects that ask the chooser of a request."""


class Keep(NamedTuple):
    """Renew a granted hold from now on, as the heartbeat does for a lease. Result: None."""

    hold: Hold


class Withdraw(NamedTuple):
    """Take the claim out of the heartbeat for good: nothing renews the claim afterwards. Result: None."""

    claim: Claim


class Orphan(NamedTuple):
    """Remove the claim in the background, from ``after`` on, for certain. Never blocks or fails."""

    claim: Claim
    abandon: bool
    how: End
    after: float = 0.0

    def request(self, budget: float) -> Release | Abandon:
        """The request that removes the claim."""
        return (Abandon if self.abandon else Release)(self.claim, budget, self.how)


class Lost(NamedTuple):
    """Report the loss of a hold, once, to its callbacks, counters and plugins. Never blocks or fails."""

    hold: Hold
    why: Reason


class Asked(NamedTuple):
    """Report requests to release a hold, each once, to its callbacks and plugins. Never blocks or fails."""

    hold: Hold
    requests: Sequence[ReleaseRequest]


class GoOn(NamedTuple):
    """Resume an interrupted release on its own thread, unless a thread works on it. Never blocks or fails."""

    hold: Hold


class StartHook(NamedTuple):
    """Start a cleanup hook on its own thread, with a budget; a repetition does nothing. Result: None."""

    plugin: str
    budget: float


class AwaitHook(NamedTuple):
    """Wait until a started hook or its budget ends; only look without ``wait``. Result: a HookReport."""

    plugin: str
    wait: bool = True


class RecordFailure(NamedTuple):
    """Write a critical-failure record, fsynced. Never fails. Result: None."""

    record: Mapping[str, object]


class Notify(NamedTuple):
    """Report an event or alert to plugins and counters. Never blocks or fails. Result: None."""

    what: Event | Alert


def with_terms(event: Event, terms: Terms) -> Event:
    """The event, with the kind, weight and capacity of its claim."""
    return event._replace(lock=terms.kind, weight=terms.weight, capacity=terms.capacity)


Wait: TypeAlias = WaitForWake | Pause | WaitForAny | AwaitHook
"""An effect that may block for a while without asking the store."""
WAITS = (WaitForWake, Pause, WaitForAny, AwaitHook)
MAY_BLOCK = (*REQUESTS, *WAITS, *CHOICES, RecordFailure)
"""The effects that an event loop must not perform as a thread does."""
Effect: TypeAlias = (
    Request
    | Wait
    | Choose
    | Judge
    | Keep
    | Withdraw
    | Orphan
    | StartHook
    | RecordFailure
    | Notify
    | Lost
    | Asked
    | GoOn
)
