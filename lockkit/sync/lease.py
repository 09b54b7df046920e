"""Leases: the handle of one acquisition, and what a copy of it can still do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

from lockkit.facts import Reason, ReleaseReport
from lockkit.lib.leaving import Exit, Statement
from lockkit.shared.copies import LeaseCopy
from lockkit.shared.lease import AnyLease, inert, kept

__all__ = ["Lease", "LeaseCopy"]


class Lease(AnyLease):
    """One acquisition that holds its lock.

    ``valid()`` is true only while the store surely keeps everybody else out (S3). The lease may be passed
    between threads, and is inert in a forked child. As a context manager it releases on the way out, and
    raises :class:`~lockkit.errors.LeaseLost` there if the hold was lost and the body raised nothing itself.

    A Lease that is garbage-collected unreleased is reported at once, in the log and by a ResourceWarning,
    with the file and line that took it; its claim is no longer renewed, and is removed when its validity has
    ended, never earlier. A signal handler that raises (Ctrl-C) may cut a release short anywhere: a second
    :meth:`release` continues it; without one the background does so within a ttl.

    """

    __slots__ = ()

    @property
    def lost(self) -> threading.Event:
        """Set, once and for good, when the hold may have lapsed (S6)."""
        return self._hold.lost

    @property
    def release_requested(self) -> threading.Event:
        """Set once somebody has asked for the release of the lock; see :attr:`release_requests`."""
        return self._hold.asked.event

    def confirm(self) -> None:
        """Ask the store whether it still records the claim; one round trip, which also renews it.

        Asks again while the trouble may pass, for ``request_timeout`` seconds in all, but for at most half of
        the time that the lease has left.

        Raises:
            LeaseLost, NotHeld: As :meth:`ensure_held`.
            BackendError: No answer in that time; the lease is as valid as before.
        """
        self._require_own()
        self._driver.requests.confirm(self._hold)

    def extend(self, ttl: float) -> None:
        """Use a longer ttl from now on.

        Args:
            ttl: Seconds; at least the present ttl, because no call shortens a held claim. The store's longest
                ttl replaces a longer one.

        Raises:
            ConfigError: Below the present ttl; or with ``strict`` longer than the store grants.
            CapabilityError: The store has one ttl for all claims.
            LeaseLost, NotHeld, BackendError: As :meth:`confirm`.
        """
        ttl = self._opening.longer_ttl(ttl, self.ttl)
        self._require_own()
        self._extend(ttl)

    def lengthen(self, ttl: float, patience: float | None) -> None:
        """Have at least this ttl, for a level of a reentrant hold. Asks the store only if it has less.

        Args:
            ttl: Seconds; allowed on this store.
            patience: Seconds that it may take; None for as long as a request.

        Raises:
            LeaseLost, NotHeld, BackendError: As :meth:`confirm`.
        """
        if self._shorter(ttl):
            self._extend(ttl, patience)

    def _extend(self, ttl: float, patience: float | None = None) -> None:
        self._driver.requests.extend(self._hold, self._longer(ttl), patience)

    def simulate_loss(self) -> None:
        """Lose the lease now, as if it had not been renewed in time: for a test of your program.

        All effects of a loss follow: ``lost`` is set, ``on_lost`` callbacks are called, the log says so, a
        ``with`` ends with LeaseLost. Returns when the callbacks have returned, after 5 s at the latest.

        Raises:
            LeaseLost, NotHeld: As :meth:`ensure_held`.
        """
        self._require_own()
        self.lapse()
        self.hear_out()

    def hear_out(self) -> None:
        """Wait until the callbacks of all losses so far have returned, 5 s at most."""
        self._driver.dispatcher.flush(5.0)

    def release(self, reason: Reason = "normal", *, raise_failed: bool = False) -> ReleaseReport:
        """Run the release pipeline: cleanup hooks, normal release, owner-checked emergency release.

        Idempotent: later and concurrent calls return the same report, and a call after an interruption
        (Ctrl-C) continues. Takes at most the sum of the budgets. In a forked child, and on an inner level of
        a reentrant hold, nothing is released (outcome KEPT).

        Args:
            reason: Kept in events, journal and metrics.
            raise_failed: Raise if no layer got a definite answer.

        Raises:
            ReleaseFailed: Only with ``raise_failed``.
        """
        report = self._report
        if report is None:
            hold, driver = self._hold, self._driver
            # A handler may be in the middle of its release.
            if inert(hold) or hold.reserved_by == threading.get_ident():
                return kept(hold, reason)
            try:
                self.level.left = True
                if hold.leave(self):
                    report = self._report = driver.releases.release(hold, reason, self.within)
                else:
                    hold.handed_back(self)
                    report = self._report = kept(hold, reason)
            finally:
                if hold.report is not None:
                    driver.registry.change(hold.claim.terms.name, old=hold)
                elif self._report is None:  # cut short
                    self._opening.look()
        if raise_failed:
            self._raise_failed(report)
        return report

    # -- as a context manager

    @property
    def look(self) -> Callable[[object], None]:
        """See :class:`lockkit.lib.leaving.Manager`."""
        return self._opening.look

    def __enter__(self) -> Lease:
        statement = self._entering
        if statement is not None and statement.stands:
            self.level.statement = statement
        return self

    def leave(
        self,
        statement: Statement | None,
        kind: type[BaseException] | None,  # noqa: ARG002
        error: BaseException | None,
        traceback: TracebackType | None,  # noqa: ARG002
    ) -> None:
        """Release the lease after its ``with``, or when ``__exit__`` is called; see :class:`Lease`."""
        try:
            report = self.release("normal" if error is None else "error")
            if statement is not None:
                statement.over()
                self.level.statement = None  # else a cycle
        except BaseException as interrupt:
            if error is None:
                raise
            error.add_note(f"lockkit: interrupted while releasing {self.name!r}: {interrupt!r}")
            return
        self.over(report, error)

    __exit__ = Exit(leave)
