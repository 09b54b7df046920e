"""Leases of locks that were taken together: valid together, released together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import overload

from lockkit.copies import LeaseCopy
from lockkit.errors import ReleaseFailed
from lockkit.facts import Reason, ReleaseReport, ReleaseReports, ReleaseRequest
from lockkit.habits import Answering
from lockkit.lease import Lease
from lockkit.leaving import Exit, Statement

__all__ = ["Leases"]


class _Whole(Statement):
    """The block that all the leases belong to. Each of them refers to it, and to none of the others.

    Attributes:
        left: Whether the release was asked for.
        block: The ``with`` statement that holds them, if there is one.
    """

    __slots__ = ("block", "gone")

    def __init__(self) -> None:
        super().__init__()
        self.gone = False
        self.block: Statement | None = None

    @property
    def stands(self) -> bool:
        return not self.gone and (self.block is None or self.block.stands)


class Leases(Answering, Sequence[Lease]):
    """The leases of locks that were taken together, in the order in which they were acquired.

    ``valid()`` is true only while every one of them is. They are released together, last first; as a context manager on the way
    out, where :class:`~lockkit.errors.LeaseLost` is raised if one of them was lost and the body raised nothing itself. A lease that
    is released by itself is no longer valid, so then they are not valid together either.

    If they are collected unreleased, what happens to each is what happens to a single :class:`~lockkit.Lease`.
    """

    __slots__ = ("__weakref__", "_asked", "_entering", "_leases", "_look", "_lost", "_report", "_whole")

    def __init__(self, leases: Sequence[Lease], look: Callable[[object], None]) -> None:
        self._leases = tuple(leases)
        self._look = look
        self._whole = _Whole()
        self._entering: Statement | None = None
        self._report: ReleaseReports | None = None
        self._lost: threading.Event | None = None
        self._asked: threading.Event | None = None
        for lease in self._leases:
            lease.statement = self._whole

    # -- a sequence

    @overload
    def __getitem__(self, index: int) -> Lease: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Lease]: ...
    def __getitem__(self, index: int | slice) -> Lease | Sequence[Lease]:
        return self._leases[index]

    def __len__(self) -> int:
        return len(self._leases)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the locks."""
        return tuple(lease.name for lease in self._leases)

    @property
    def fences(self) -> Mapping[str, int]:
        """The fencing token of each lock, by name."""
        return {lease.name: lease.fence for lease in self._leases}

    # -- as one lease

    @property
    def since(self) -> float:
        """When the first of them was granted, in seconds since the epoch."""
        return min(lease.since for lease in self._leases)

    @property
    def left(self) -> bool:
        """Whether the release was asked for; nobody works under the leases any more."""
        return self._whole.gone

    @left.setter
    def left(self, left: bool) -> None:
        self._whole.gone = left

    @property
    def statement(self) -> Statement | None:
        """The ``with`` statement that holds the leases; they end with it."""
        return self._whole.block

    @statement.setter
    def statement(self, statement: Statement | None) -> None:
        self._whole.block = statement

    @property
    def open(self) -> bool:
        """Whether its user still works under them: they were not released, and their ``with`` statement, if any, is not over."""
        return self._whole.stands

    @property
    def report(self) -> ReleaseReports | None:
        """How the release went; None before. Set as well when the client was closed and released the holds."""
        if self._report is None:
            reports = [lease.report for lease in self._leases]
            if all(reports):
                self._report = _combined(reports)
        return self._report

    @property
    def lost(self) -> threading.Event:
        """Set, once and for good, when one of the holds may have lapsed (S6)."""
        event = self._lost
        if event is None:
            event = self._lost = self._lost or threading.Event()
            for lease in self._leases:
                lease.alarm(event.set)
        if self.lost_because:
            event.set()
        return event

    @property
    def lost_because(self) -> Reason:
        """Why the first of the lost holds was lost; empty while none is."""
        return next((lease.lost_because for lease in self._leases if lease.lost_because), "")

    def valid(self) -> bool:
        """Whether all holds surely stand now. Arithmetic; no I/O."""
        return all(lease.valid() for lease in self._leases)

    def remaining(self) -> float:
        """Seconds for which all of them stay valid if nothing more is heard from the store; 0 if one is not valid."""
        return min(lease.remaining() for lease in self._leases)

    def time_to_stop(self) -> float:
        """Seconds until the store may let the next one into the first of the locks, also after ``lost`` was set."""
        return min(lease.time_to_stop() for lease in self._leases)

    def ensure_held(self) -> None:
        """Raise unless all of them are valid. Arithmetic; no I/O.

        Raises:
            LeaseLost, NotHeld: As :meth:`lockkit.Lease.ensure_held`, for the first that is not.
        """
        for lease in self._leases:
            lease.ensure_held()

    def confirm(self) -> None:
        """Ask the store about each of them, as :meth:`lockkit.Lease.confirm` does."""
        for lease in self._leases:
            lease.confirm()

    def extend(self, ttl: float) -> None:
        """Use a longer ttl for each of them from now on, as :meth:`lockkit.Lease.extend` does."""
        for lease in self._leases:
            lease.extend(ttl)

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Call back, once, from a background thread, when the first of the holds is lost; at once if one is already."""
        pending = [callback]

        def call() -> None:
            try:
                first = pending.pop()
            except IndexError:
                return
            first()

        for lease in self._leases:
            lease.on_lost(call)

    @property
    def release_requested(self) -> threading.Event:
        """Set once somebody has asked for the release of one of the locks."""
        event = self._asked
        if event is None:
            event = self._asked = self._asked or threading.Event()
            for lease in self._leases:
                lease.alarm_asked(event.set)
        if self.release_requests:
            event.set()
        return event

    @property
    def release_requests(self) -> tuple[ReleaseRequest, ...]:
        """The requests to release one of the locks, of each lock the oldest first."""
        return tuple(request for lease in self._leases for request in lease.release_requests)

    def on_release_requested(self, callback: Callable[[ReleaseRequest], None]) -> None:
        """Call back for each request to release one of the locks, as :meth:`lockkit.Lease.on_release_requested` does."""
        for lease in self._leases:
            lease.on_release_requested(callback)

    def beat(self, progress: float | None = None, message: str | None = None) -> None:
        """Tell with each of them how far the work is, as :meth:`lockkit.Lease.beat` does."""
        for lease in self._leases:
            lease.beat(progress, message)

    def detach(self) -> Leases:
        """Separate them from the thread or task that took them, as :meth:`lockkit.Lease.detach` does."""
        for lease in self._leases:
            lease.detach()
        return self

    def release(self, reason: Reason = "normal", *, raise_failed: bool = False) -> ReleaseReports:
        """Release all of them, last first, each as :meth:`lockkit.Lease.release` does.

        Idempotent. What interrupts the release of one (Ctrl-C) is raised once the others were released too. Takes at most the sum
        of the budgets of all.

        Args:
            reason: Kept in events, journal and metrics.
            raise_failed: Raise if no layer of the release of one got a definite answer.

        Raises:
            ReleaseFailed: Only with ``raise_failed``; with the report of the first that failed.
        """
        # Not before its turn: the background would go on with what it takes for a release that was cut short.
        self._whole.gone = False
        try:
            reports = self._release_each(reason)
        finally:
            self._whole.gone = True
        report = self._report = self._report or _combined(reports[::-1])
        failed = next((one for one in report.reports if one.outcome == "ABANDONED"), None)
        if raise_failed and failed is not None:
            raise ReleaseFailed(
                f"no layer of the release of {failed.name!r} got a definite answer",
                report=failed,
                name=failed.name,
                hint="it is removed in the background, and lapses by itself; see: lockkit failures list",
            )
        return report

    # Apart from the ``try`` above: in CPython 3.11 an exception at the start of this loop would not reach the ``finally``.

    def _release_each(self, reason: Reason) -> list[ReleaseReport]:
        interrupts: list[BaseException] = []
        reports: list[ReleaseReport] = []
        for lease in self._leases[::-1]:
            try:
                reports.append(lease.release(reason))
            except BaseException as interrupt:
                interrupts.append(interrupt)
        if interrupts:
            raise interrupts[0]
        return reports

    # -- as a context manager

    @property
    def look(self) -> Callable[[object], None]:
        """See :class:`lockkit.leaving.Manager`."""
        return self._look

    def entering(self, statement: Statement) -> None:
        """See :class:`lockkit.leaving.Manager`."""
        self._entering = statement

    def __enter__(self) -> Leases:
        statement = self._entering
        if statement is not None and statement.stands:
            self._whole.block = statement
        return self

    def leave(
        self,
        statement: Statement | None,
        kind: type[BaseException] | None,  # noqa: ARG002
        error: BaseException | None,
        traceback: TracebackType | None,  # noqa: ARG002
    ) -> None:
        """Release the leases at the end of their ``with`` statement, or when ``__exit__`` is called by hand; see :class:`~lockkit.Leases`."""
        try:
            report = self.release("normal" if error is None else "error")
            if statement is not None:
                statement.over()
        except BaseException as interrupt:
            if error is None:
                raise
            error.add_note(f"lockkit: interrupted while releasing {', '.join(self.names)}: {interrupt!r}")
            return
        for lease, one in zip(self._leases, report.reports, strict=True):
            if error is None and (one.outcome == "LOST" or lease.lost_because):
                raise lease.invalid()
            for layer in one.layers if error is not None else ():
                if error is not None and layer.error:
                    error.add_note(f"lockkit: releasing {lease.name!r}, {layer.layer} layer: {layer.error}")

    __exit__ = Exit(leave)

    def __repr__(self) -> str:
        state = "released" if self.report else "lost" if self.lost_because else "held"
        return f"<{type(self).__name__} {', '.join(map(repr, self.names))} {state}>"

    def __reduce__(self) -> tuple[type[tuple[LeaseCopy, ...]], tuple[tuple[LeaseCopy, ...]]]:
        return tuple, (tuple(LeaseCopy(lease.handle()) for lease in self._leases),)


def _combined(reports: Sequence[ReleaseReport | None]) -> ReleaseReports:
    return ReleaseReports(tuple(report for report in reports if report is not None))
