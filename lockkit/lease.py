"""Leases: the handle of one acquisition, and what a copy of it can still do."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from lockkit.caller import Caller, place
from lockkit.copies import LeaseCopy, handle_of
from lockkit.errors import ConfigError, LeaseLost, NotHeld, ReleaseFailed
from lockkit.facts import Reason, ReleaseReport
from lockkit.habits import Answering
from lockkit.hold import RELEASING, Hold
from lockkit.invalid import invalid
from lockkit.leaving import Exit, Statement
from lockkit.options import longer_ttl

if TYPE_CHECKING:
    from lockkit.drivers.threads import Driver
    from lockkit.opening import Opening

__all__ = ["Lease", "LeaseCopy"]


class Lease(Answering):
    """One acquisition that holds its lock.

    ``valid()`` is true only while the store surely keeps everybody else out (S3); the handle may be passed between
    threads, and is inert in a forked child. As a context manager it releases on the way out, and raises
    :class:`~lockkit.errors.LeaseLost` there if the hold was lost and the body raised nothing itself.

    A Lease that is garbage-collected unreleased is reported at once, in the log and by a ResourceWarning, with the file and line that
    took it; its claim is renewed no more and is removed when its validity has ended, never earlier. A signal handler that raises
    (Ctrl-C) may cut a release short anywhere: a second :meth:`release` goes on where the first was cut, and without one the
    background does so within a ttl.

    Attributes:
        left: Whether the release was asked for; nobody works under the lease any more.
        statement: The ``with`` statement that holds the lease; the lease ends with it.
    """

    __slots__ = (
        "__weakref__",
        "_callbacks",
        "_driver",
        "_entering",
        "_hold",
        "_opening",
        "_report",
        "_taken_at",
        "left",
        "statement",
    )

    def __init__(self, opening: Opening, driver: Driver, hold: Hold, taken_at: Caller) -> None:
        self._opening = opening
        self._driver = driver
        self._hold = hold
        self._taken_at = taken_at
        self._report: ReleaseReport | None = None
        self._entering: Statement | None = None
        self.statement: Statement | None = None
        self.left = False
        self._callbacks: tuple[Callable[[], None], ...] = ()

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
    def ttl(self) -> float:
        """Seconds that the store keeps the claim without renewal."""
        return self._hold.claim.terms.ttl

    @property
    def since(self) -> float:
        """When it was granted, in seconds since the epoch."""
        return self._hold.since_wall

    @property
    def lost(self) -> threading.Event:
        """Set, once and for good, when the hold may have lapsed (S6)."""
        return self._hold.lost

    @property
    def lost_because(self) -> Reason:
        """Why the hold was lost, one of the words of ``lockkit.facts.LOSSES``; empty while it is not lost."""
        return self._hold.lost_why

    @property
    def open(self) -> bool:
        """Whether its user still works under it: it was not released, and its ``with`` statement, if any, is not over."""
        return not self.left and (self.statement is None or self.statement.stands)

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
        """Whether the hold surely stands now. Arithmetic; no I/O."""
        return self._hold.valid(self._opening.clock.now()) if self._mine() else False

    def remaining(self) -> float:
        """Seconds for which it stays valid if nothing more is heard from the store; 0 if it is not valid."""
        if not self._mine():
            return 0.0
        now = self._opening.clock.now()
        return max(0.0, self._hold.expires - now) if self._hold.valid(now) else 0.0

    def time_to_stop(self) -> float:
        """Seconds until the store may let the next one in, also after ``lost`` was set (evict): time to stop working."""
        return max(0.0, self._hold.expires - self._opening.clock.now()) if self._mine() else 0.0

    def ensure_held(self) -> None:
        """Raise unless it is valid. Arithmetic; no I/O.

        Raises:
            LeaseLost: It may have lapsed.
            NotHeld: It was released, or belongs to another process.
        """
        if not self.valid():
            raise self.invalid()

    def confirm(self) -> None:
        """Ask the store whether it still records the claim; one round trip, which also renews it.

        Asks again while the trouble may pass, for ``request_timeout`` seconds in all, but for no more than half of the time
        that the lease has left.

        Raises:
            LeaseLost, NotHeld: As :meth:`ensure_held`.
            BackendError: No answer in that time; the lease is as valid as before.
        """
        self._require_own()
        self._driver.requests.confirm(self._hold)

    def extend(self, ttl: float) -> None:
        """Use a longer ttl from now on.

        Args:
            ttl: Seconds; at least the present ttl, because no call shortens a held claim.

        Raises:
            ConfigError: Below the present ttl.
            CapabilityError: The store has one ttl for all claims.
            LeaseLost, NotHeld, BackendError: As :meth:`confirm`.
        """
        ttl = longer_ttl(ttl, self.ttl, self._opening.capabilities)
        self._require_own()
        self._extend(ttl)

    def lengthen(self, ttl: float, patience: float | None) -> None:
        """Have at least this ttl from now on, for a level of a reentrant hold. Asks the store only if it has less.

        Args:
            ttl: Seconds; allowed on this store.
            patience: Seconds that it may take; None for as long as a request.

        Raises:
            LeaseLost, NotHeld, BackendError: As :meth:`confirm`.
        """
        if ttl > self.ttl and not self._opening.capabilities.fixed_ttl:
            self._extend(ttl, patience)

    def _extend(self, ttl: float, patience: float | None = None) -> None:
        claim = self._hold.claim
        self._driver.requests.extend(
            self._hold, claim._replace(terms=claim.terms._replace(ttl=ttl)), patience
        )

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Call back, once, from a background thread, when the hold is lost; at once if it is already.

        Only the lease keeps a reference to the callback, so the callback may be a method of the object that keeps the lease. A
        lease that was released (on a reentrant hold: this level of it) or collected calls nobody.
        """
        call = _once(callback)
        self._callbacks = (*self._callbacks, call)
        if self._hold.lost_why:
            self._driver.dispatcher.run(call, self._hold.name)

    @property
    def callbacks(self) -> Sequence[Callable[[], None]]:
        """The callbacks given to :meth:`on_lost`; the driver calls each once."""
        return self._callbacks

    def alarm(self, call: Callable[[], object]) -> None:
        """Call at once, in the thread that notices, when the hold is lost. The function neither blocks nor raises."""
        self._hold.alarms = (*self._hold.alarms, call)

    def simulate_loss(self) -> None:
        """Lose the lease now, as if it had not been renewed in time: for a test of what your program does then.

        All that happens at a loss happens: ``lost`` is set, ``on_lost`` callbacks are called, the log says so, and a ``with`` ends with
        LeaseLost. The call returns when the callbacks have returned, after 5 s at the latest.

        Raises:
            LeaseLost, NotHeld: As :meth:`ensure_held`.
        """
        self._require_own()
        self._driver.lose(self._hold, "lapsed")
        self._driver.dispatcher.flush(5.0)

    def detach(self) -> Lease:
        """Separate the lease from the thread or task that took it, so that every thread or task, that one too, may wait for its lock."""
        self._hold.key = None
        return self

    def handle(self) -> dict[str, object]:
        """A JSON document from which :meth:`~lockkit.Client.adopt` makes a handle elsewhere. Holds the token."""
        return handle_of(self._hold, self._opening.config.namespace)

    def hand_over(self) -> dict[str, object]:
        """Stop looking after the claim and return its :meth:`handle`: for a script that ends while another goes on.

        From here on the claim lasts until its ttl is over, unless somebody renews it, and this lease is inert. Only for locks made with ``pulseless=True``.

        Raises:
            ConfigError: The claim would end with this process.
            LeaseLost, NotHeld: It does not hold.
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
        self._report = _kept(hold, "handed over")
        self._driver.beats.withdraw(hold.claim.token)
        self._driver.registry.change(hold.name, old=hold)
        return handle

    def release(self, reason: Reason = "normal", *, raise_failed: bool = False) -> ReleaseReport:
        """Run the release pipeline: cleanup hooks, normal release, owner-checked emergency release.

        Idempotent: later and concurrent calls return the same report, and one after an interruption (Ctrl-C) goes on where
        that came. Takes at most the sum of the budgets. In a forked child, and on an inner level of a reentrant hold,
        nothing is released (outcome KEPT).

        Args:
            reason: Kept in events, journal and metrics.
            raise_failed: Raise if no layer got a definite answer.

        Raises:
            ReleaseFailed: Only with ``raise_failed``.
        """
        report = self._report
        if report is None:
            hold, hook_of = self._hold, RELEASING.get()
            if (
                hold.pid != os.getpid()
                or hold.turn_of == threading.get_ident()  # a handler in the middle of its release
                or (hook_of is not None and hook_of == hold.claim_id)  # or one of its own cleanup hooks
            ):
                return _kept(hold, reason)
            try:
                self.left = True
                if hold.leave():
                    report = self._report = self._driver.release(hold, reason)
                else:
                    hold.handed_back(self)
                    report = self._report = _kept(hold, reason)
            finally:
                if hold.report is not None:
                    self._driver.registry.change(hold.claim.terms.name, old=hold)
                elif self._report is None:  # cut short
                    self._opening.look()
        if raise_failed and report.outcome == "ABANDONED":
            raise ReleaseFailed(
                f"no layer of the release of {self.name!r} got a definite answer",
                report=report,
                name=self.name,
                hint="it is removed in the background, and lapses by itself; see: lockkit failures list",
            )
        return report

    # -- as a context manager

    @property
    def look(self) -> Callable[[object], None]:
        """See :class:`lockkit.leaving.Manager`."""
        return self._opening.look

    def entering(self, statement: Statement) -> None:
        """See :class:`lockkit.leaving.Manager`."""
        self._entering = statement

    def __enter__(self) -> Lease:
        statement = self._entering
        if statement is not None and statement.stands:
            self.statement = statement
        return self

    def leave(
        self,
        statement: Statement | None,
        kind: type[BaseException] | None,  # noqa: ARG002
        error: BaseException | None,
        traceback: TracebackType | None,  # noqa: ARG002
    ) -> None:
        """Release the lease at the end of its ``with`` statement, or when ``__exit__`` is called by hand; see :class:`Lease`."""
        try:
            report = self.release("normal" if error is None else "error")
            if statement is not None:
                statement.over()
        except BaseException as interrupt:
            if error is None:
                raise
            error.add_note(f"lockkit: interrupted while releasing {self.name!r}: {interrupt!r}")
            return
        if error is not None:
            for layer in report.layers:
                if layer.error:
                    error.add_note(f"lockkit: releasing {self.name!r}, {layer.layer} layer: {layer.error}")
        elif report.outcome == "LOST" or self._hold.lost_why:
            raise self.invalid()

    __exit__ = Exit(leave)

    def __del__(self) -> None:
        hold: Hold | None = getattr(self, "_hold", None)  # None: its constructor was cut short
        if hold is None or hold.report is not None or hold.ended or hold.pid != os.getpid():
            return
        if hold.dropped or hold.has_other(self):
            return
        # No locks here: the collector may run in any thread, inside any critical section. The deadline thread does the
        # rest, also if this finalizer is cut short.
        if not self.open:  # it was left, and a signal cut its release short
            hold.closing = True
            self._opening.look()
            return
        hold.taken_at = self._taken_at
        hold.dropped = True
        self._opening.look()  # the deadline thread also writes the log message
        if hold.closing or hold.lost_why:
            return
        warnings.warn_explicit(
            f"the lease of {hold.name!r} was never released; it lapses when its validity ends",
            ResourceWarning,
            *place(self._taken_at),
            source=self,
        )

    def __repr__(self) -> str:
        state = "released" if self._hold.ended else "lost" if self._hold.lost_why else "held"
        return f"<Lease {self.name!r} claim {self.claim_id} fence {self.fence} {state}>"

    def __reduce__(self) -> tuple[Callable[[Mapping[str, object]], LeaseCopy], tuple[dict[str, object]]]:
        return LeaseCopy, (self.handle(),)

    def _mine(self) -> bool:
        return self._hold.pid == os.getpid()

    def _require_own(self) -> None:
        if not self._mine() or self._hold.ended or self._hold.lost_why:
            raise self.invalid()

    def invalid(self) -> LeaseLost | NotHeld:
        """The error that says why it is not valid."""
        return invalid(self._hold)


def _kept(hold: Hold, reason: Reason) -> ReleaseReport:
    return ReleaseReport(hold.name, hold.claim_id, hold.fence, "KEPT", reason)


def _once(callback: Callable[[], None]) -> Callable[[], None]:
    """A function that two threads may both call; the first call runs the callback."""
    pending = [callback]

    def call() -> None:
        try:
            first = pending.pop()
        except IndexError:
            return
        first()

    return call
