"""Leases of locks that were taken together: valid together, released together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from lockkit.facts import Reason, ReleaseReport, ReleaseReports
from lockkit.lib.bell import Flag
from lockkit.lib.leaving import Exit, Statement
from lockkit.protocol.sharing import Sharing
from lockkit.shared.leases import AnyLeases, combined
from lockkit.sync.lease import Lease

__all__ = ["Leases"]


class Leases(AnyLeases[Lease]):
    """The leases of locks that were taken together, in the order in which they were acquired.

    ``valid()`` is true only while every one of them is. They are released together, last first; as a context
    manager on the way out, where :class:`~lockkit.errors.LeaseLost` is raised if one was lost and the body
    raised nothing itself. Releasing one alone makes it invalid, and so all of them together.

    If they are collected unreleased, each is treated as a single :class:`~lockkit.Lease` is.
    """

    __slots__ = ("_asked", "_look", "_lost")

    def __init__(self, leases: Sequence[Lease], look: Callable[[object], None]) -> None:
        super().__init__(leases)
        self._look = look
        self._lost: threading.Event | None = None
        self._asked: threading.Event | None = None

    @property
    def lost(self) -> threading.Event:
        """Set, once and for good, when one of the holds may have lapsed (S6)."""
        event = self._lost
        if event is None:
            event = self._lost = self._lost or Flag()
            for lease in self._leases:
                lease.alarm(event.set)
        if self.lost_because:
            event.set()
        return event

    @property
    def release_requested(self) -> threading.Event:
        """Set once somebody has asked for the release of one of the locks."""
        event = self._asked
        if event is None:
            event = self._asked = self._asked or Flag()
            for lease in self._leases:
                lease.alarm_asked(event.set)
        if self.release_requests:
            event.set()
        return event

    def confirm(self) -> None:
        """Ask the store about each of them, as :meth:`lockkit.Lease.confirm` does."""
        for lease in self._leases:
            lease.confirm()

    def extend(self, ttl: float) -> None:
        """Use a longer ttl for each of them from now on, as :meth:`lockkit.Lease.extend` does."""
        for lease in self._leases:
            lease.extend(ttl)

    def simulate_loss(self) -> None:
        """Lose all leases now, as if none had been renewed in time: for a test of your program.

        Each is lost as with :meth:`lockkit.Lease.simulate_loss`; call that of one lease to lose only that.

        Raises:
            LeaseLost, NotHeld: As :meth:`ensure_held`; then nothing is lost.
        """
        self.ensure_held()
        for lease in self._leases:  # first all, since a callback may release them
            lease.lapse()
        self._leases[0].hear_out()

    def release(self, reason: Reason = "normal", *, raise_failed: bool = False) -> ReleaseReports:
        """Release all of them, last first, each as :meth:`lockkit.Lease.release` does.

        Idempotent. An interruption of one release (Ctrl-C) is raised after the others. Takes at most the
        budgets of the cleanup hooks, and ``request_timeout`` in all for requests that get no answer.

        Args:
            reason: Kept in events, journal and metrics.
            raise_failed: Raise if no layer of the release of one got a definite answer.

        Raises:
            ReleaseFailed: Only with ``raise_failed``; with the report of the first that failed.
        """
        # Not before its turn: the background would continue it as an interrupted release.
        self.level.left = False
        interrupts: list[BaseException] = []
        try:
            reports = self._release_each(reason, interrupts)
        finally:
            self.level.left = True
            interrupts.clear()  # what is raised refers to these frames, and must not be kept by them
        report = self._report = self._report or combined(reports[::-1])
        if raise_failed:
            self._raise_failed(report)
        return report

    # Outside the ``try`` above: CPython 3.11 would skip its ``finally`` for an exception as this loop starts.

    def _release_each(self, reason: Reason, interrupts: list[BaseException]) -> list[ReleaseReport]:
        reports: list[ReleaseReport] = []
        sharing = Sharing(self._leases[0].request_timeout, len(self._leases))
        for lease in self._leases[::-1]:
            try:
                lease.within = sharing.next()
                report = lease.release(reason)
                reports.append(report)
                sharing.took(report)
            except BaseException as interrupt:
                interrupts.append(interrupt)
        if interrupts:
            raise interrupts[0]
        return reports

    # -- as a context manager

    @property
    def look(self) -> Callable[[object], None]:
        """See :class:`lockkit.lib.leaving.Manager`."""
        return self._look

    def __enter__(self) -> Self:
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
        """Release the leases after their ``with``, or when ``__exit__`` is called."""
        try:
            report = self.release("normal" if error is None else "error")
            if statement is not None:
                statement.over()
                self.level.statement = None  # else a cycle
        except BaseException as interrupt:
            if error is None:
                raise
            error.add_note(f"lockkit: interrupted while releasing {', '.join(self.names)}: {interrupt!r}")
            return
        self._over(report, error)

    __exit__ = Exit(leave)
