"""Leases of locks that were taken together, in a program with asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

from lockkit.aio.lease import AsyncLease, CancelOnLoss, Loss, ReleaseRequested, may_wait
from lockkit.facts import Reason, ReleaseReport, ReleaseReports
from lockkit.lib.leaving import Exit
from lockkit.notes.members import members_of
from lockkit.shared.leases import AnyLeases, combined

if TYPE_CHECKING:
    from lockkit.lib.leaving import Statement

__all__ = ["AsyncLeases", "AsyncPoolLeases"]


class _OfSeveral:
    """The loss of the first of several holds, or the first request to release one. Keeps no lease alive."""

    __slots__ = ()
    _parts: Sequence[Loss]

    def is_set(self) -> bool:
        """Whether there is one. Once true, it stays true."""
        return any(part.is_set() for part in self._parts)

    def call(self, key: object, callback: Callable[[], object]) -> None:
        """As for one hold; what is called may be called once for each of them."""
        for part in self._parts:
            part.call(key, callback)

    def forget(self, key: object) -> None:
        """Do not call what was given with this key."""
        for part in self._parts:
            part.forget(key)


class _AnyLoss(_OfSeveral, Loss):
    __slots__ = ("_parts",)

    def __init__(self, parts: Sequence[Loss]) -> None:
        self._parts = parts


class _AnyReleaseRequested(_OfSeveral, ReleaseRequested):
    __slots__ = ("_parts",)

    def __init__(self, parts: Sequence[Loss]) -> None:
        self._parts = parts


class AsyncLeases(AnyLeases[AsyncLease]):
    """The leases of locks taken together, in the order acquired: as :class:`~lockkit.Leases`, with ``await``.

    ``valid()`` is true only while every one of them is. An ``async with`` releases them at its end, and
    raises :class:`~lockkit.errors.LeaseLost` there if one was lost and the body raised nothing itself.
    """

    __slots__ = ()

    @property
    def lost(self) -> Loss:
        """The loss of the first of the holds (S6): ``await leases.lost``, or ``leases.lost.is_set()``."""
        return _AnyLoss([lease.lost for lease in self._leases])

    @property
    def release_requested(self) -> ReleaseRequested:
        """The first request to release one of the locks: ``await`` it, or ask its ``is_set()``."""
        return _AnyReleaseRequested([lease.release_requested for lease in self._leases])

    def cancel_on_loss(self) -> CancelOnLoss:
        """Cancel an ``async with``'s body when a lease is lost; see :meth:`AsyncLease.cancel_on_loss`."""
        return CancelOnLoss(self)

    async def confirm(self) -> None:
        """Ask the store about each of them, as :meth:`AsyncLease.confirm` does."""
        for lease in self._leases:
            await lease.confirm()

    async def extend(self, ttl: float) -> None:
        """Use a longer ttl for each of them from now on, as :meth:`AsyncLease.extend` does."""
        for lease in self._leases:
            await lease.extend(ttl)

    async def simulate_loss(self) -> None:
        """Lose all leases now, as if none had been renewed in time; see :meth:`lockkit.Leases.simulate_loss`.

        Raises:
            LeaseLost, NotHeld: As :meth:`ensure_held`; then nothing is lost.
        """
        self.ensure_held()
        for lease in self._leases:
            lease.lapse()
        await self._leases[0].hear_out()

    async def release(self, reason: Reason = "normal", *, raise_failed: bool = False) -> ReleaseReports:
        """Release all of them at the same time, each as :meth:`AsyncLease.release` does.

        Idempotent. All releases start before the first of them waits, so none is left out if the caller is
        cancelled; the CancelledError is raised after the last. Takes at most the largest budget.

        Args:
            reason: Kept in events, journal and metrics.
            raise_failed: Raise if no layer of the release of one got a definite answer.

        Raises:
            ReleaseFailed: Only with ``raise_failed``; with the report of the first that failed.
        """
        self.level.left = True  # first: after a signal the background makes the releases that did not start
        for lease in self._leases[::-1]:
            lease.begin_release(reason)
        reports: list[ReleaseReport] = []
        errors: list[BaseException] = []
        for lease in self._leases[::-1]:
            try:
                reports.append(await lease.release(reason))
            except (asyncio.CancelledError, Exception) as error:
                errors.append(error)
        if errors:
            try:
                raise errors[0]
            finally:
                errors.clear()  # what is raised refers to this frame, and must not be kept by it
        report = self._report = self._report or combined(reports[::-1])
        if raise_failed:
            self._raise_failed(report)
        return report

    # -- as a context manager

    look = None
    """See :class:`lockkit.lib.leaving.Manager`."""

    async def __aenter__(self) -> Self:
        statement = self._entering
        if statement is not None:
            self.level.statement = statement
        return self

    async def leave(
        self,
        statement: Statement | None,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Release the leases at the end of their statement."""
        if isinstance(error, GeneratorExit) and not may_wait(error):
            for lease in self._leases:
                await lease.leave(None, kind, error, traceback)  # which does not wait then
            return
        report = await self.release("normal" if error is None else "error")
        if statement is not None:
            statement.over()
            self.level.statement = None  # else a cycle
        self._over(report, error)

    __aexit__ = Exit(leave)


class AsyncPoolLeases(AsyncLeases):
    """The leases of some members of a pool, as the request prefers them; see :class:`AsyncLeases`."""

    __slots__ = ("_within",)

    def __init__(self, leases: Sequence[AsyncLease], within: Mapping[str, str]) -> None:
        super().__init__(leases)
        self._within = within

    @property
    def members(self) -> tuple[str, ...]:
        """The members that are held; ``names`` has the names of their locks and of those around them."""
        return members_of(self.names, self._within)
