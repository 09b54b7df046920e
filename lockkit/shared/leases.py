"""Both faces' part of the leases of locks taken together: joint validity, and decisions of a release."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from lockkit.errors import LeaseLost, NotHeld
from lockkit.facts import CleanupContext, Reason, ReleaseReport, ReleaseReports, ReleaseRequest
from lockkit.lib.leaving import Level, Statement
from lockkit.shared.copies import LeaseCopy
from lockkit.shared.lease import AnyLease, check_callback, once, release_failed
from lockkit.values.habits import Answering
from lockkit.values.names import digest

if TYPE_CHECKING:
    from lockkit.config.config import Config

__all__ = ["AnyLeases", "combined", "described"]

E = TypeVar("E", bound=AnyLease)


class _Whole(Statement):
    """The block of all the leases. Each of them refers to it, and to none of the others."""

    __slots__ = ("_level",)

    def __init__(self, level: Level[AnyLeases[Any]]) -> None:
        super().__init__()
        self._level = level

    @property
    def stands(self) -> bool:
        return self._level.open


class _FirstOnly:
    """A callback that several releases call: the first runs it, and the others wait until it has returned.

    Args:
        callback: The callback.
    """

    def __init__(self, callback: Callable[[CleanupContext], object]) -> None:
        self._pending = [callback]
        self._over = threading.Event()

    def __call__(self, context: CleanupContext) -> None:
        try:
            callback = self._pending.pop()
        except IndexError:
            self._over.wait(context.budget())
            return
        try:
            callback(context)
        finally:
            self._over.set()


class AnyLeases(Answering, Sequence[E]):
    """Leases of locks that were taken together; the classes of the two faces add the calls that wait."""

    __slots__ = ("__weakref__", "_entering", "_leases", "_report", "level")

    def __init__(self, leases: Sequence[E]) -> None:
        self._leases = tuple(leases)
        self.level: Level[AnyLeases[E]] = Level(self)
        whole = _Whole(self.level)
        self._report: ReleaseReports | None = None
        self._entering: Statement | None = None
        for lease in self._leases:
            lease.level.statement = whole

    # -- a sequence

    @overload
    def __getitem__(self, index: int) -> E: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[E]: ...
    def __getitem__(self, index: int | slice) -> E | Sequence[E]:
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
    def open(self) -> bool:
        """Whether their user still works under them: not released, nor past their ``with`` statement."""
        return self.level.open

    @property
    def report(self) -> ReleaseReports | None:
        """How the release went; None before. Set as well if a close of the client released the holds."""
        if self._report is None:
            reports = [lease.report for lease in self._leases]
            if all(reports):
                self._report = combined(reports)
        return self._report

    @property
    def lost_because(self) -> Reason:
        """Why the first of the lost holds was lost; empty while none is."""
        return next((lease.lost_because for lease in self._leases if lease.lost_because), "")

    def valid(self) -> bool:
        """Whether all holds are surely valid now. Arithmetic; no I/O."""
        return all(lease.valid() for lease in self._leases)

    def remaining(self) -> float:
        """Seconds for which all stay valid without news from the store; 0 if one is not valid."""
        return min(lease.remaining() for lease in self._leases)

    def time_to_stop(self) -> float:
        """Seconds until the store may grant the first of the locks to others, also after ``lost`` was set."""
        return min(lease.time_to_stop() for lease in self._leases)

    def ensure_held(self) -> None:
        """Raise unless all of them are valid. Arithmetic; no I/O.

        Raises:
            LeaseLost, NotHeld: As :meth:`lockkit.Lease.ensure_held`, for the first that is not.
        """
        for lease in self._leases:
            lease.ensure_held()

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Call back once, from a background thread, when the first hold is lost; at once if one is."""
        call = once(callback)
        for lease in self._leases:
            lease.on_lost(call)

    @property
    def release_requests(self) -> tuple[ReleaseRequest, ...]:
        """The requests to release one of the locks, of each lock the oldest first."""
        return tuple(request for lease in self._leases for request in lease.release_requests)

    def on_release_requested(self, callback: Callable[[ReleaseRequest], None]) -> None:
        """Call back for each request to release a lock; see :meth:`lockkit.Lease.on_release_requested`."""
        for lease in self._leases:
            lease.on_release_requested(callback)

    def on_release(self, callback: Callable[[CleanupContext], object]) -> None:
        """Call back once, before any of the locks is released; see :meth:`lockkit.Lease.on_release`.

        If the callback hangs, the others are released when its budget is over.
        """
        check_callback(callback, self._leases[0].name)
        first = _FirstOnly(callback)
        for lease in self._leases:
            lease.on_release(first)

    def beat(self, progress: float | None = None, message: str | None = None) -> None:
        """Report with each of them how far the work is, as :meth:`lockkit.Lease.beat` does."""
        for lease in self._leases:
            lease.beat(progress, message)

    def detach(self) -> Self:
        """Separate them from the thread or task that took them, as :meth:`lockkit.Lease.detach` does."""
        for lease in self._leases:
            lease.detach()
        return self

    def invalid(self) -> LeaseLost | NotHeld:
        """The error that says why they are not valid: that of the first lost, or else invalid, lease."""
        lost = [lease for lease in self._leases if lease.lost_because]
        over = [lease for lease in self._leases if not lease.valid()]
        return (lost or over or self._leases)[0].invalid()

    # -- as a context manager

    def entering(self, statement: Statement) -> None:
        """See :class:`lockkit.lib.leaving.Manager`."""
        self._entering = statement

    # -- after a release

    def _raise_failed(self, report: ReleaseReports) -> None:
        """Raise if no layer of the release of one got a definite answer."""
        failed = next((one for one in report.reports if one.outcome == "ABANDONED"), None)
        if failed is not None:
            raise release_failed(failed)

    def _over(self, report: ReleaseReports, error: BaseException | None) -> None:
        """End the statement of the leases: add failures to its body's error, or raise if one was lost."""
        for lease, one in zip(self._leases, report.reports, strict=True):
            lease.over(one, error)

    def __repr__(self) -> str:
        state = "released" if self.report else "lost" if self.lost_because else "held"
        return f"<{type(self).__name__} {', '.join(map(repr, self.names))} {state}>"

    def __reduce__(self) -> tuple[type[tuple[LeaseCopy, ...]], tuple[tuple[LeaseCopy, ...]]]:
        return tuple, (tuple(LeaseCopy(lease.handle()) for lease in self._leases),)


def combined(reports: Sequence[ReleaseReport | None]) -> ReleaseReports:
    """The reports of several releases as one; without those that are None."""
    return ReleaseReports(tuple(report for report in reports if report is not None))


def described(config: Config, leases: Sequence[AnyLease]) -> list[dict[str, object]]:
    """The holds of leases, for the environment of a program under them (:mod:`lockkit.protocol.outer`)."""
    from lockkit.config.store_names import store_of

    # A digest: a URL may contain a password, and child processes inherit the environment.
    store = digest(store_of(config))[:12]
    return [
        {
            "name": lease.name,
            "claim_id": lease.claim_id,
            "fence": lease.fence,
            "kind": lease.terms.kind,
            "capacity": lease.terms.capacity,
            "weight": lease.terms.weight,
            "store": store,
            "namespace": config.namespace,
        }
        for lease in leases
    ]
