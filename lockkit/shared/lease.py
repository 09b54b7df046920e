"""The part that the leases of both faces share: facts, arithmetic, and the end of a collected lease."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Self

from lockkit.errors import ConfigError, LeaseLost, NotHeld, ReleaseFailed
from lockkit.facts import CleanupContext, Event, Reason, ReleaseReport, ReleaseRequest
from lockkit.lib.caller import Caller, place
from lockkit.lib.leaving import Level, Statement
from lockkit.lib.takers import asker
from lockkit.notes import remarks
from lockkit.notes.asked import each_once
from lockkit.protocol.hold import RELEASING, Behind, Handle, Hold
from lockkit.protocol.invalid import invalid
from lockkit.shared.copies import LeaseCopy, handle_of
from lockkit.shared.options import check_plain
from lockkit.store.queue import excludes_all
from lockkit.values.habits import Answering

if TYPE_CHECKING:
    from lockkit.drivers.threads import Driver
    from lockkit.shared.opening import Opening
    from lockkit.store.spi import Claim, Terms

__all__ = ["AnyLease", "check_callback", "inert", "kept", "once", "release_failed"]


class AnyLease(Answering):
    """One acquisition that holds its lock. The leases of the two faces add the calls that wait.

    Args:
        opening: The client.
        on_lost: Called when the hold is lost, for the first lease of the hold; None for nothing.
        driver: The engine that got the hold.
        hold: The hold.
        taken_at: The place in the user's program that acquired.

    Attributes:
        level: Whether the lease was left, and the statement that holds it.
        within: Seconds that the requests of its release may take; None for as long as configured.
    """

    __slots__ = (
        "__weakref__",
        "_asked_callbacks",
        "_callbacks",
        "_driver",
        "_entering",
        "_hold",
        "_last_calls",
        "_opening",
        "_report",
        "_taken_at",
        "level",
        "within",
    )

    def __init__(
        self,
        opening: Opening,
        on_lost: Callable[[], None] | None,
        driver: Driver,
        hold: Hold,
        taken_at: Caller,
    ) -> None:
        self._opening = opening
        self._driver = driver
        self._hold = hold
        self._taken_at = taken_at
        self._report: ReleaseReport | None = None
        self._entering: Statement | None = None
        self.level: Level[Handle] = Level(self, partial(_collected, hold, driver.heartbeat.look, taken_at))
        self.within: float | None = None
        self._callbacks: tuple[Callable[[], None], ...] = ()
        self._asked_callbacks: tuple[Callable[[ReleaseRequest], None], ...] = ()
        self._last_calls: tuple[Callable[[CleanupContext], object], ...] = ()
        if not hold.levels:  # the first lease; Hold.enter adds those of further levels
            hold.levels = (self.level,)  # from here on its garbage collection takes the claim back
            if on_lost is not None:
                self.on_lost(on_lost)
            terms = hold.claim.terms
            if terms.asked is not None and terms.asked != terms.ttl:
                opening.tell_ttl(terms.asked, terms.ttl)
            driver.registry.change(terms.name, new=hold)

    @property
    def request_timeout(self) -> float:
        """Seconds that the requests of a release may take, as configured."""
        return self._driver.request_timeout

    @property
    def name(self) -> str:
        return self._hold.name

    @property
    def claim_id(self) -> str:
        """The name of the claim outside this process."""
        return self._hold.claim_id

    @property
    def token(self) -> str:
        """The secret that releases this claim. Do not print or log it."""
        return self._hold.claim.token

    @property
    def fence(self) -> int:
        """The fencing token: strictly rising per name, in grant order (S4)."""
        return self._hold.fence

    @property
    def exclusive(self) -> bool:
        """Whether nobody else can hold the lock: a mutex, a writer, or all permits of a semaphore or member.

        A semaphore that is resized while it is held counts as it was.
        """
        terms = self._hold.claim.terms
        return excludes_all(terms.kind, terms.weight, terms.capacity)

    @property
    def terms(self) -> Terms:
        """The terms of the claim."""
        return self._hold.claim.terms

    @property
    def ttl(self) -> float:
        """Seconds that the store keeps the claim without renewal."""
        return self._hold.claim.terms.ttl

    @property
    def since(self) -> float:
        """When it was granted, in seconds since the epoch."""
        return self._hold.since_wall

    @property
    def began(self) -> float:
        """When it was granted, in seconds of CLOCK_BOOTTIME, which changes of the wall clock do not move."""
        return self._hold.since

    @property
    def ends_at(self) -> float:
        """When max_hold ends it, in seconds of CLOCK_BOOTTIME; infinity without a max_hold.

        Up to 0.2 % before its end by this host's clock, because that of a store may run faster.
        """
        return self._hold.latest

    @property
    def lost_because(self) -> Reason:
        """The reason of the loss, one of ``lockkit.facts.LOSSES``; empty while the hold is not lost.

        Computed from the clock at each call, as :meth:`valid` is.
        """
        hold = self._hold
        return hold.lost_why or (hold.overdue(self._opening.clock.now()) if self._mine() else "")

    @property
    def open(self) -> bool:
        """Whether its user still works under it: neither released nor past its ``with`` statement, if any."""
        return self.level.open

    @property
    def report(self) -> ReleaseReport | None:
        """How the release went; None before. Set as well when the client was closed and released the hold."""
        return self._report or self._hold.report

    @property
    def requests(self) -> Mapping[str, object]:
        """The claim's note as last seen on the store: what others asked of this holder."""
        note = self._hold.requests
        return note if isinstance(note, Mapping) else {}

    def valid(self) -> bool:
        """Whether the hold is surely valid now. Arithmetic; no I/O."""
        if self._report is not None:  # the hold may go on, for other levels of a reentrant lock
            return False
        return self._hold.valid(self._opening.clock.now())

    def remaining(self) -> float:
        """Seconds for which it stays valid if nothing more is heard from the store; 0 if it is not valid."""
        return self.time_to_stop() if self.valid() else 0.0

    def time_to_stop(self) -> float:
        """Seconds until the store may grant the lock to the next holder; 0 after a release.

        The time left for stopping the work, also after an eviction has set ``lost``.
        """
        if self._report is not None or not self._mine():
            return 0.0
        return max(0.0, self._hold.expires - self._opening.clock.now())

    def ensure_held(self) -> None:
        """Raise unless it is valid. Arithmetic; no I/O.

        Raises:
            LeaseLost: The hold may have lapsed.
            NotHeld: The lease was released, or belongs to another process.
        """
        if not self.valid():
            raise self.invalid()

    def tell_guard(self, kind: str, duration: float | None, data: Mapping[str, object]) -> None:
        """Report an event of a guard that was opened with this lease. Never blocks, never raises.

        Args:
            kind: ``guard_opened``, ``guard_written`` or ``guard_refused``.
            duration: Seconds of the step.
            data: The resource, and its answer.
        """
        dispatcher, hold = self._driver.dispatcher, self._hold
        if dispatcher.wants(kind):
            dispatcher.tell(Event(kind, hold.name, hold.claim_id, hold.fence, duration=duration, data=data))

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Call back, once, from a background thread, when the hold is lost; at once if it is already.

        Only the lease keeps a reference to the callback, which may be a method of the object that keeps the
        lease. A released (on a reentrant hold: this level of it) or collected lease calls nobody.
        """
        call = once(callback)
        self._callbacks = (*self._callbacks, call)
        if self._hold.lost_why:
            self._driver.dispatcher.run(call, self._hold.name)

    @property
    def callbacks(self) -> Sequence[Callable[[], None]]:
        """The callbacks given to :meth:`on_lost`; the driver calls each once."""
        return self._callbacks

    @property
    def release_requests(self) -> tuple[ReleaseRequest, ...]:
        """Requests of :meth:`lockkit.Client.ask_release`, as of the last renewal; the oldest first."""
        return tuple(self._hold.asked.known.values())

    def on_release_requested(self, callback: Callable[[ReleaseRequest], None]) -> None:
        """Call back, from a background thread, for each request to release the lock; soon for known ones.

        A request changes nothing by itself: the lease stays valid until it is released. The next renewal
        brings the request, after at most a third of the ttl; a lease that is not renewed in the background
        (``auto_renew=False``) gets none. Only the lease keeps a reference to the callback.

        Args:
            callback: A plain function, called with the :class:`~lockkit.facts.ReleaseRequest`.

        Raises:
            ConfigError: The callback is not callable, or is a coroutine function.
        """
        if not callable(callback):
            raise ConfigError(f"on_release_requested takes a function, not {callback!r}", name=self.name)
        check_plain(callback, "on_release_requested", self.name)
        call = each_once(callback)
        self._asked_callbacks = (*self._asked_callbacks, call)
        for request in self.release_requests:
            self._driver.dispatcher.run(partial(call, request), self._hold.name)

    @property
    def asked_callbacks(self) -> Sequence[Callable[[ReleaseRequest], None]]:
        """The callbacks given to :meth:`on_release_requested`; the driver calls each once per request."""
        return self._asked_callbacks

    def on_release(self, callback: Callable[[CleanupContext], object]) -> None:
        """Call back once at the release, while the lock is still held and renewed: to remove a file, say.

        The callbacks run in the first layer of the release, one by one in this order, each like a hook
        ``lockkit_cleanup``: before those of plugins, on a thread of its own with the caller's context
        variables, within ``cleanup_budget`` seconds. The report of the release has how each ended, under
        ``on_release``. One that raises or hangs stops neither the next one nor the release.

        On a reentrant hold the callbacks of all levels run when the outermost is released. Only the lease
        keeps a reference to the callback: one that is collected unreleased calls nobody.

        Args:
            callback: A plain function, called with the :class:`~lockkit.facts.CleanupContext`. If its
                ``lost`` is true, the next holder may be there already.

        Raises:
            ConfigError: The callback is not callable, or is a coroutine function.
            LeaseLost, NotHeld: The lease is over.
        """
        check_callback(callback, self.name)
        self._require_own()
        self._last_calls = (*self._last_calls, callback)
        self._hold.calls_last = True

    @property
    def last_calls(self) -> Sequence[Callable[[CleanupContext], object]]:
        """The callbacks given to :meth:`on_release`."""
        return self._last_calls

    def stands_for(self, behind: Behind) -> None:
        """Note the devices behind the lock, for the cleanup hooks of its release."""
        self._hold.behind = behind

    def beat(self, progress: float | None = None, message: str | None = None) -> None:
        """Report progress of the work, for ``lockkit status``, ``explain`` and ``client.inspect``. No I/O.

        The heartbeat writes the latest report after the next renewal: it is seen within about a third of the
        ttl, and costs at most one more call of the store for each renewal, however often this is called. A
        lease that is not renewed in the background, or whose ``note`` leaves no room, reports nothing.

        Args:
            progress: The share of the work that is done, from 0 to 1.
            message: One line of at most 200 characters. An argument that is left out is no longer shown.

        Raises:
            ConfigError: Neither was given, or one of them is not allowed.
            LeaseLost, NotHeld: The lease is over.
        """
        told = remarks.progress(progress, message, self._opening.clock.wall(), self.name)
        self._require_own()
        self._driver.beats.tell(self._hold.claim.token, told)

    def alarm(self, call: Callable[[], object]) -> None:
        """Call a function, which must not block or raise, at once in the thread that notices a loss."""
        self._hold.alarms = (*self._hold.alarms, call)

    def follow(self, call: Callable[[float], object]) -> None:
        """Call a function with the end of the hold's validity (CLOCK_BOOTTIME): now, and whenever it changes.

        Later calls come from the renewing thread. The function must not block or raise.
        """
        self._hold.follow(call)

    def alarm_asked(self, call: Callable[[], object]) -> None:
        """Call a function, which must not block or raise, in the thread that notices a request to release."""
        asked = self._hold.asked
        asked.alarms = (*asked.alarms, call)

    def lapse(self) -> None:
        """Lose the hold now, as if not renewed in time, unless it is over. The callbacks come later."""
        self._driver.lose(self._hold, "lapsed")

    def detach(self) -> Self:
        """Separate the lease from the thread or task that took it, so that any may wait for its lock."""
        key, self._hold.key = self._hold.key, None
        if key is not None and key != asker():  # its taker may wait now
            self._driver.detached(key)
        return self

    def handle(self) -> dict[str, object]:
        """A JSON document from which :meth:`~lockkit.Client.adopt` makes a handle. Contains the token."""
        return handle_of(self._hold, self._opening.config.namespace)

    def hand_over(self) -> dict[str, object]:
        """Leave the claim alone and return its :meth:`handle`, for a script that ends while another goes on.

        From here on the claim lasts until its ttl is over, unless somebody renews it, and this lease is
        inert. Only for locks made with ``pulseless=True``.

        Raises:
            ConfigError: The claim would end with this process.
            LeaseLost, NotHeld: The lease does not hold.
        """
        hold = self._hold
        if not hold.claim.terms.pulseless:
            raise ConfigError(
                f"the claim of {self.name!r} is tied to this process",
                hint="make the lock with pulseless=True",
            )
        self._require_own()
        handle = self.handle()
        hold.end()  # first: nobody renews what has ended, even if this is cut short
        self._report = kept(hold, "handed over")
        self.level.over()
        self._driver.beats.withdraw(hold.claim.token)
        self._driver.registry.change(hold.name, old=hold)
        return handle

    # -- as a context manager

    def entering(self, statement: Statement) -> None:
        """See :class:`lockkit.lib.leaving.Manager`."""
        self._entering = statement

    # -- before and after a release

    def _raise_failed(self, report: ReleaseReport) -> None:
        """Raise if no layer of a release got a definite answer."""
        if report.outcome == "ABANDONED":
            raise release_failed(report)

    def over(self, report: ReleaseReport, error: BaseException | None) -> None:
        """End the statement of the lease: add failures to the error of its body, or raise if it was lost."""
        if error is not None:
            for layer in report.layers:
                if layer.error:
                    error.add_note(f"lockkit: releasing {self.name!r}, {layer.layer} layer: {layer.error}")
            lost = report.outcome == "LOST" or self._hold.lost_why
            if lost and not isinstance(error, LeaseLost):
                error.add_note(f"lockkit: {self.invalid()}")
        elif report.outcome == "LOST" or self._hold.lost_why:
            raise self.invalid()

    def _shorter(self, ttl: float) -> bool:
        """Whether the hold has a shorter ttl than this, which the store allows to be lengthened."""
        return ttl > self.ttl and not self._opening.capabilities.fixed_ttl

    def _longer(self, ttl: float) -> Claim:
        """The claim with a longer ttl."""
        claim = self._hold.claim
        return claim._replace(terms=claim.terms._replace(ttl=ttl))

    def __repr__(self) -> str:
        state = "released" if self._hold.ended else "lost" if self._hold.lost_why else "held"
        return f"<{type(self).__name__} {self.name!r} claim {self.claim_id} fence {self.fence} {state}>"

    def __reduce__(self) -> tuple[Callable[[Mapping[str, object]], LeaseCopy], tuple[dict[str, object]]]:
        return LeaseCopy, (self.handle(),)

    def _mine(self) -> bool:
        return self._hold.origin.is_here()

    def _require_own(self) -> None:
        if self._report is not None or not self._mine() or self._hold.ended or self._hold.lost_why:
            raise self.invalid()

    def invalid(self) -> LeaseLost | NotHeld:
        """The error that says why it is not valid."""
        return invalid(self._hold, left=self._report is not None)


# Not a finalizer of the lease: it would run for each lease, and swallow what a signal handler raises there.


def _collected(hold: Hold, look: Callable[[], None], taken_at: Caller, gone: object) -> None:  # noqa: ARG001 (the weak reference)
    """Notice that a lease was collected whose hold is not over.

    No locks here: the collector may run in any thread, inside any critical section. The deadline thread does
    the rest, even if this is cut short.
    """
    if hold.report is not None or hold.ended or not hold.origin.is_here() or hold.dropped:
        return
    if hold.given_up:  # it was left, and a signal cut its release short
        look()
        return
    if not hold.collected:
        return
    hold.taken_at = taken_at
    hold.dropped = True
    look()  # the deadline thread also writes the log message
    if not hold.lost_why:
        warnings.warn_explicit(
            f"the lease of {hold.name!r} was never released; it lapses when its validity ends",
            ResourceWarning,
            *place(taken_at),
        )


def check_callback(callback: object, name: str) -> None:
    """Raise ConfigError for an ``on_release`` that is not callable, or is a coroutine function."""
    if not callable(callback):
        raise ConfigError(f"on_release takes a function, not {callback!r}", name=name)
    check_plain(callback, "on_release", name)


def release_failed(report: ReleaseReport) -> ReleaseFailed:
    """The error for a release whose outcome is ABANDONED."""
    return ReleaseFailed(
        f"no layer of the release of {report.name!r} got a definite answer",
        report=report,
        name=report.name,
        hint="it is removed in the background, and lapses by itself; see: lockkit failures list",
    )


def inert(hold: Hold) -> bool:
    """Whether a release must do nothing: in a forked child, or in a cleanup hook of this very release."""
    hook_of = RELEASING.get()
    return not hold.origin.is_here() or (hook_of is not None and hook_of == hold.claim_id)


def kept(hold: Hold, reason: Reason) -> ReleaseReport:
    """The report of a release that did nothing."""
    return ReleaseReport(hold.name, hold.claim_id, hold.fence, "KEPT", reason)


def once(callback: Callable[[], None]) -> Callable[[], None]:
    """A function that two threads may both call; the first call runs the callback."""
    pending = [callback]

    def call() -> None:
        try:
            first = pending.pop()
        except IndexError:
            return
        first()

    return call
