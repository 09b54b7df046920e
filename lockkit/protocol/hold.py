"""Validity of a hold: computed from the clock each time, never a flag that a heartbeat sets (S3, S5, S6).

A :class:`Hold` is one granted claim, shared by the user's handle, the heartbeat and the release pipeline.
"""

from __future__ import annotations

import threading
import weakref
from _thread import RLock
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from functools import lru_cache
from math import inf
from typing import Any, Protocol

from lockkit.facts import Capabilities, CleanupContext, Owner, Reason, ReleaseReport, ReleaseRequest
from lockkit.lib.bell import Flag
from lockkit.lib.caller import Caller
from lockkit.lib.leaving import Level
from lockkit.lib.origin import Origin, this_origin
from lockkit.notes.asked import Asked
from lockkit.store.spi import Claim, End
from lockkit.values.names import claim_id

__all__ = [
    "REGISTRIES",
    "RELEASING",
    "Behind",
    "Handle",
    "Hold",
    "Holds",
    "always",
    "held_here",
    "span",
]

RELEASING: ContextVar[str | None] = ContextVar("lockkit_releasing", default=None)
"""The id of the claim whose cleanup hooks run here. A hook that releases it must not wait for its own end."""


_ROUNDED = 0.002
"""Seconds by which a store that counts in milliseconds may end a hold before its max_hold is over."""


@lru_cache(maxsize=64)
def span(ttl: float, drift: float, margin: float) -> float:
    """Seconds from its basis for which a claim is valid, by its ttl and the store's drift and margin."""
    return ttl * (1.0 - drift) - margin


def always() -> bool:
    """Return True: a thread runs until it has done its work."""
    return True


class Handle(Protocol):
    """A user's handle of a hold; a reentrant hold has one for each level.

    The hold refers to the handle weakly, because an object to which the callbacks refer may own the handle.
    """

    @property
    def level(self) -> Level[Any]:
        """The level of the hold to which the handle belongs."""

    @property
    def callbacks(self) -> Sequence[Callable[[], None]]:
        """Functions to call when the hold is lost, each once."""

    @property
    def asked_callbacks(self) -> Sequence[Callable[[ReleaseRequest], None]]:
        """Functions to call when somebody asks for the release of the hold, for each request once."""

    @property
    def last_calls(self) -> Sequence[Callable[[CleanupContext], object]]:
        """Functions to call in the first layer of the release of the hold."""


class Behind(Protocol):
    """The devices of a lock, such as a GPU."""

    @property
    def devices(self) -> tuple[str, ...]:
        """Their UUIDs."""


class Hold:
    """One granted claim, as its client knows it.

    ``valid(now)`` is true only while the store still records the claim: no request that may remove the claim
    was sent, and ``now`` is before basis + ttl x (1 - drift) - margin and before since + max_hold x (1 -
    drift), less what stores round off. Once the claim may have lapsed, the hold is lost for good, whichever
    thread notices first. Only a process-bound hold survives unanswered renewals, because its store keeps the
    claim until the process dies.

    Attributes:
        alarms: Functions to call, in the thread that notices, on a loss. They neither block nor raise.
        behind: The devices of the lock; None for a plain lock.
        basis: CLOCK_BOOTTIME seconds; when the last answered request that moved the deadline was sent.
        since: When the granted request was sent, or an earlier one whose answer, maybe a grant, was lost.
            Never later than the store's grant, from which the store counts max_hold. The basis may be older
            if the claim joined a session, or a lease of the server, that was already running.
        calls_last: Whether a handle has functions to call in the first layer of the release.
        latest: CLOCK_BOOTTIME seconds at which max_hold is over; infinity without one.
        left_calls: The calls of the handles of inner levels that were left.
        levels: The levels, each with its handle; empty before the first was handed out.
        doubtful: Whether the outcome of its acquire was ever UNKNOWN; ``abandon`` then removes the claim.
        closing: Whether the release has started. Another thread resumes an interrupted release.
        dropped: Whether the last handle was collected unreleased; see :attr:`collected`.
        expires: CLOCK_BOOTTIME seconds until which the store certainly excludes others without a renewal.
        followers: Functions that the renewing thread calls with each new ``expires``, like ``alarms``.
        failures: Consecutive unanswered renewal batches with the hold; belongs to the heartbeat, as ``next``.
        key: A weak reference to the thread or task that took the hold; None once detached.
        next: CLOCK_BOOTTIME seconds at which the heartbeat renews the hold; infinity if it does not.
        origin: The process that acquired the hold; in a forked child the hold is inert.
        taken_at: The place in the user's program that acquired the hold; None if unknown.
        ttl: Seconds that the store keeps the claim without renewal.
        process_bound: Whether the store keeps the claim until the process dies, even without renewals.
        turn: The mutex of the releasing thread. A task has it only from one of its waits to the next.
        reserved_by: The releasing thread (its identifier) or task (a negative number); 0 for nobody.
        reserved_until: CLOCK_BOOTTIME seconds until which the task keeps its place; then another may take it.
        reserver_runs: Whether the event loop of the task runs. If it does not, another may take over at once.
        work: How far the release got, for the thread that goes on with it; belongs to the driver.
    """

    __slots__ = (
        "_asked",
        "_capabilities",
        "_event",
        "_mutex",
        "_reported",
        "_span",
        "alarms",
        "auto_renew",
        "basis",
        "behind",
        "calls_last",
        "claim",
        "closing",
        "doubtful",
        "dropped",
        "ended",
        "expires",
        "failures",
        "fence",
        "followers",
        "key",
        "latest",
        "left_calls",
        "levels",
        "lost_why",
        "next",
        "origin",
        "process_bound",
        "reentrant",
        "report",
        "requests",
        "reserved_by",
        "reserved_until",
        "reserver_runs",
        "since",
        "since_wall",
        "taken_at",
        "ttl",
        "turn",
        "where",
        "work",
    )

    def __init__(
        self,
        claim: Claim,
        fence: int,
        basis: float,
        capabilities: Capabilities,
        since: float | None = None,
        wall: float = 0.0,
        doubtful: bool = False,  # noqa: FBT001, FBT002 (keywords cost on the hot path)
        auto_renew: bool = True,  # noqa: FBT001, FBT002
        origin: Origin | None = None,
        key: weakref.ref[object] | None = None,
        taken_at: Caller | None = None,
        reentrant: bool = False,  # noqa: FBT001, FBT002
        where: str = "process",
    ) -> None:
        self.claim = claim
        self.fence = fence
        self.basis = basis
        self.since = basis if since is None else since
        self.since_wall = wall
        self.doubtful = doubtful
        self.auto_renew = auto_renew
        self.origin = this_origin() if origin is None else origin
        self.closing = False
        self.reentrant = reentrant
        self.key = key
        self.taken_at = taken_at
        self.dropped = False
        self._reported = False
        self.ended = False
        self.levels: tuple[Level[Handle], ...] = ()
        self.alarms: tuple[Callable[[], object], ...] = ()
        self.followers: tuple[Callable[[float], object], ...] = ()
        self.turn = RLock()  # a handler may release the hold whose release it interrupted
        self.reserved_by = 0
        self.reserved_until = inf
        self.reserver_runs: Callable[[], bool] = always
        self.work: tuple[Any, Any] | None = None
        self.lost_why: Reason = ""
        self.where = where
        self.report: ReleaseReport | None = None
        self.requests: object = None
        self.behind: Behind | None = None
        self.calls_last = False
        self.left_calls: tuple[Callable[[CleanupContext], object], ...] = ()
        self._asked: Asked | None = None
        self._capabilities = capabilities
        terms = claim.terms
        self.ttl = terms.ttl
        self.next = inf
        self.failures = 0
        self._span = span(terms.ttl, capabilities.drift, capabilities.margin)
        longest = terms.max_hold
        self.latest = inf if longest is None else self.since + span(longest, capabilities.drift, _ROUNDED)
        self.expires = min(basis + self._span, self.latest)
        self.process_bound = terms.process_bound
        self._mutex = RLock()
        self._event: threading.Event | None = None

    @property
    def name(self) -> str:
        return self.claim.terms.name

    @property
    def claim_id(self) -> str:
        return claim_id(self.claim.token)

    @property
    def owner(self) -> Owner:
        return self.claim.terms.owner

    @property
    def standing(self) -> bool:
        """Whether the hold was not released, lost or collected, so that somebody may be working under it."""
        return not (self.ended or self.lost_why) and (self.in_hand or not self.levels)

    @property
    def in_hand(self) -> bool:
        """Whether any handle is open."""
        if self.dropped:
            return False
        return self.has_other(None)

    def has_other(self, handle: Handle | None) -> bool:
        """Whether a handle beside this one is open."""
        for level in self.levels:  # a loop, not a generator, because each release asks this
            user = level.handle()
            if user is not None and user is not handle and level.open:
                return True
        return False

    @property
    def collected(self) -> bool:
        """Whether no handle is open, and at least one was collected unreleased.

        A closed handle may still be referenced: a lock keeps that of an interrupted ``with lock:``.
        """
        return self.dropped or (bool(self.levels) and not self.has_other(None) and not self._all_left)

    @property
    def callbacks(self) -> list[Callable[[], None]]:
        """The on_lost callbacks of all handles that still exist."""
        handles = [level.handle() for level in self.levels]
        return [call for handle in handles if handle is not None for call in handle.callbacks]

    @property
    def asked(self) -> Asked:
        """The requests to release the hold, as far as they are known."""
        asked = self._asked
        if asked is None:
            with self._mutex:
                asked = self._asked = self._asked or Asked()
        return asked

    @property
    def asked_callbacks(self) -> list[Callable[[ReleaseRequest], None]]:
        """The on_release_requested callbacks of all handles that still exist."""
        handles = [level.handle() for level in self.levels]
        return [call for handle in handles if handle is not None for call in handle.asked_callbacks]

    @property
    def last_calls(self) -> list[Callable[[CleanupContext], object]]:
        """Functions for the first layer of the release: of levels that were left, and of existing handles."""
        handles = [level.handle() for level in self.levels]
        there = [call for handle in handles if handle is not None for call in handle.last_calls]
        return [*self.left_calls, *there]

    def handed_back(self, handle: Handle) -> None:
        """Forget the handle of a level that was left, if the hold has other handles."""
        with self._mutex:
            others = tuple(level for level in self.levels if level.handle() not in (None, handle))
            if others:
                # Keep the last: without any level, the hold would look as if it had never been handed out.
                self.levels = others
                handle.level.over()
                if self.calls_last:
                    self.left_calls = (*self.left_calls, *handle.last_calls)

    @property
    def given_up(self) -> bool:
        """Whether the hold is to be released now: its release has started, or its last handle was left.

        A signal may have interrupted the release at any point. Such a hold is removed at once, because nobody
        works under it. A collected hold, by contrast, blocks until its validity ends.
        """
        return self.closing or (self._all_left and not self.dropped)

    @property
    def _all_left(self) -> bool:
        """Whether the hold was handed out, and no level is open any more."""
        for level in self.levels:
            if level.open:
                return False
        return bool(self.levels)

    @property
    def lost(self) -> threading.Event:
        """An event that is set, for good, when the hold may have lapsed."""
        event = self._event
        if event is None:
            event = self._event = self._event or Flag()
        if self.lost_why:
            event.set()
        return event

    def reserved(self, now: float) -> bool:
        """Whether a thread or task performs the release; not a task that is late, or on a stopped loop."""
        # Ask the loop first: its engine then drops a closed one.
        return self.reserved_by != 0 and self.reserver_runs() and now < self.reserved_until

    # Levels are handles, not a counter: leaving one twice counts once, and a collected handle does not count.

    def leave(self, handle: Handle | None = None) -> bool:
        """Start the release unless another handle is open. Returns whether it has started, now or earlier."""
        with self._mutex:
            if not self.closing and (self.dropped or not self.has_other(handle)):
                self.closing = True
            return self.closing

    def enter(self, handle: Handle) -> bool:
        """Add a level, which lasts as long as its handle is open; False if the hold is over."""
        with self._mutex:
            if self.closing or not self.standing:
                return False
            open_ones = [level for level in self.levels if level.handle() is not None and level.open]
            self.levels = (*open_ones, handle.level)
            return True

    def take_over(self) -> bool:
        """Start the release even if handles are open; return False if it had started before."""
        with self._mutex:
            began, self.closing = self.closing, True
            return not began

    def valid(self, now: float) -> bool:
        """Whether the store certainly still records this hold, and this is the process that acquired it."""
        return self.fresh(now) and self.origin.is_here()

    def fresh(self, now: float) -> bool:
        """Like :meth:`valid`, for a caller that is known to run in the hold's own process."""
        return not self.ended and not self.lost_why and now < self.expires

    def renewed(self, basis: float, now: float) -> bool:
        """Use the answer to a renewal, read at ``now``; return False if the hold had run out by then.

        An answer moves the basis only forwards, and only if the hold is still valid when the answer is read.
        """
        with self._mutex:
            if self.ended or self.lost_why:
                return not self.lost_why
            if now >= self.expires and self._over(now):
                return False
            if basis > self.basis:  # no max() and min(): each heartbeat does this for thousands of holds
                self.basis, end = basis, basis + self._span
                self.expires = end if end < self.latest else self.latest  # noqa: FURB136
                for follow in self.followers:
                    follow(self.expires)
            return True

    def extended(self, claim: Claim, basis: float, now: float) -> bool:
        """Use the answer to an ``extend``, read at ``now``, with new terms. False if the hold had run out."""
        with self._mutex:
            if self.ended or self.lost_why or self._over(now):
                return False
            can = self._capabilities
            ttl = claim.terms.ttl
            length = span(ttl, can.drift, can.margin)
            newest = max(self.basis, basis)
            expires = min(newest + length, self.latest)
            # No signal interrupts this: a hold whose times disagree would be neither valid nor lost.
            self.claim, self.ttl, self._span, self.basis, self.expires = claim, ttl, length, newest, expires
            self.process_bound = claim.terms.process_bound
            for follow in self.followers:
                follow(expires)
            return True

    def follow(self, call: Callable[[float], object]) -> None:
        """Add a follower, and call it with the present ``expires``; no renewal comes between."""
        with self._mutex:
            self.followers = (*self.followers, call)
            call(self.expires)

    def overdue(self, now: float) -> Reason:
        """Why the hold is over by the clock alone: ``max_hold``, ``lost``; empty if it is not."""
        if self.ended or self.lost_why or not self._over(now):
            return ""
        return "max_hold" if now >= self.latest else "lost"

    def _over(self, now: float) -> bool:
        return now >= self.latest or (now >= self.basis + self._span and not self.process_bound)

    def lose(self, why: Reason) -> bool:
        """Declare the hold lost for good; True for the one caller that did so first."""
        with self._mutex:
            if self.ended or self.lost_why:
                return False
            self.lost_why = why
        if self._event is not None:
            self._event.set()
        for alarm in self.alarms:
            alarm()
        return True

    def report_drop(self) -> bool:
        """Note that the last handle's drop is reported; True for the one caller that is to report it."""
        with self._mutex:
            reported, self._reported = self._reported, True
            return not reported

    def end(self) -> End:
        """Note that the claim is about to be removed: the hold is no longer valid, and no longer renewed.

        Call this before the request is sent.

        Returns:
            How the claim ends. A hold without a handle was not used, and one that is handed out later was
            never valid. But a lost hold counts as used: a paused thread may still hand it out.
        """
        with self._mutex:
            self.ended = True
            if self.lost_why:
                return "ungraceful"
            return "released" if self.levels else "unused"


class Holds(Protocol):
    """The holds of one client in this process."""

    @property
    def holds(self) -> Mapping[str, Sequence[Hold]]:
        """The holds by name."""


REGISTRIES: weakref.WeakSet[Holds] = weakref.WeakSet()
"""The holds of all clients of this process, for messages about a claim that this very process holds."""


def held_here(name: str, claim_id: str) -> Hold | None:
    """The hold of a claim that this process has, through any client; None if it has none."""
    try:
        holds = [hold for each in list(REGISTRIES) for hold in each.holds.get(name, ())]
    except RuntimeError:  # another thread opens a client; this is for a message alone
        return None
    return next((hold for hold in holds if hold.origin.is_here() and hold.claim_id == claim_id), None)
