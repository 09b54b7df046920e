"""The leases of the asyncio face."""

from __future__ import annotations

import asyncio
import inspect
import threading
import weakref
from collections.abc import Callable, Generator
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from lockkit.drivers.loopjobs import call_soon
from lockkit.facts import Reason, ReleaseReport
from lockkit.lib.leaving import Exit, Statement
from lockkit.lib.prompt_future import PromptFuture
from lockkit.protocol.hold import Hold
from lockkit.shared.copies import LeaseCopy
from lockkit.shared.lease import AnyLease, inert, kept

if TYPE_CHECKING:
    from lockkit.aio.engines import Engines
    from lockkit.drivers.loopreleases import LoopRelease
    from lockkit.drivers.threads import Driver
    from lockkit.errors import LeaseLost, NotHeld
    from lockkit.lib.caller import Caller
    from lockkit.shared.opening import Opening

__all__ = ["AsyncLease", "AsyncLeaseCopy", "CancelOnLoss", "Loss", "ReleaseRequested", "may_wait"]


class Loss:
    """The loss of a hold: ``await`` it until the hold may have lapsed; ``is_set()`` says whether it has."""

    __slots__ = ("__weakref__", "_calls", "_hold")

    def __init__(self, hold: Hold) -> None:
        self._hold = hold
        self._calls: dict[object, tuple[asyncio.AbstractEventLoop, Callable[[], object]]] = {}
        hold.alarms = (*hold.alarms, self._bell())

    def is_set(self) -> bool:
        """Whether the hold may have lapsed (S6). Once true, it stays true."""
        return bool(self._hold.lost_why)

    def call(self, key: object, callback: Callable[[], object]) -> None:
        """Call something in the running loop when the hold is lost; soon, if it is lost already."""
        loop = asyncio.get_running_loop()
        self._calls[key] = loop, callback
        if self.is_set():
            loop.call_soon(callback)

    def forget(self, key: object) -> None:
        """Do not call what was given with this key."""
        self._calls.pop(key, None)

    def _bell(self) -> Callable[[], None]:
        """The function that the hold calls; it keeps neither this object nor the lease of a waiting task."""
        there = weakref.WeakMethod(self._ring)

        def bell() -> None:
            if (ring := there()) is not None:
                ring()

        return bell

    def _ring(self) -> None:
        for loop, callback in list(self._calls.values()):
            call_soon(loop, callback)

    async def wait(self) -> None:
        """Wait for the loss. After the lease was released, this waits for ever."""
        over: PromptFuture[None] = PromptFuture(asyncio.get_running_loop())
        self.call(over, partial(over.deliver, None))
        try:
            await over
        finally:
            self.forget(over)

    def __await__(self) -> Generator[Any, None, None]:
        return self.wait().__await__()


class ReleaseRequested(Loss):
    """The first request to release a hold: ``await`` it, or ask ``is_set()`` whether there is one."""

    __slots__ = ()

    def __init__(self, hold: Hold) -> None:
        self._hold = hold
        self._calls = {}
        hold.asked.alarms = (*hold.asked.alarms, self._bell())

    def is_set(self) -> bool:
        """Whether somebody has asked for the release. Once true, it stays true."""
        return self._hold.asked.event.is_set()


class Losable(Protocol):
    """One lease, or several leases together."""

    @property
    def lost(self) -> Loss: ...

    def ensure_held(self) -> None: ...

    def invalid(self) -> LeaseLost | NotHeld: ...


class CancelOnLoss:
    """Cancels the body of an ``async with`` when the lease is lost; see :meth:`AsyncLease.cancel_on_loss`."""

    def __init__(self, lease: Losable) -> None:
        self._lease = lease
        self._task: asyncio.Task[Any] | None = None
        self._before = 0
        self._cancelled = False

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        if task is None or self._task is not None:
            raise RuntimeError("cancel_on_loss() is entered once, in a task")
        self._lease.ensure_held()
        self._task, self._before = task, task.cancelling()
        self._lease.lost.call(self, self._cancel)
        return self

    def _cancel(self) -> None:
        if self._task is not None and not self._cancelled:
            self._cancelled = True
            self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._lease.lost.forget(self)
        cancelled_by_us, self._cancelled = self._cancelled, True  # a loss from here on cancels nothing
        only_our_cancellation = cancelled_by_us and self._task.uncancel() <= self._before
        # The body swallowed the cancellation, or ended before its next await.
        lost_without_error = kind is None and self._lease.lost.is_set()
        # Any other error, and a cancellation that also came from elsewhere, passes unchanged.
        cancelled = kind is not None and issubclass(kind, asyncio.CancelledError)
        if lost_without_error or (only_our_cancellation and cancelled):
            raise self._lease.invalid() from error


class AsyncLease(AnyLease):
    """One acquisition that holds its lock, for asyncio: as :class:`~lockkit.Lease`, with ``await``.

    ``valid()``, ``remaining()``, ``ensure_held()`` and the properties are arithmetic, and called without
    ``await``. A thread renews the lease, so a coroutine that blocks the loop does not lose it.

    The lease may be passed between tasks and event loops. As an asynchronous context manager it releases at
    its end, and raises :class:`~lockkit.errors.LeaseLost` if it was lost and the body raised nothing.
    """

    __slots__ = ("_engines", "_loss", "_requested", "_work")

    def __init__(
        self,
        engines: Engines,
        opening: Opening,
        on_lost: Callable[[], None] | None,
        driver: Driver,
        hold: Hold,
        taken_at: Caller,
    ) -> None:
        self._engines = engines
        self._loss: Loss | None = None
        self._requested: ReleaseRequested | None = None
        self._work: LoopRelease | None = None
        super().__init__(opening, on_lost, driver, hold, taken_at)

    @property
    def lost(self) -> Loss:
        """The loss of the hold (S6): ``await lease.lost``, or ``lease.lost.is_set()``."""
        loss = self._loss
        if loss is None:
            loss = self._loss = Loss(self._hold)
        return loss

    @property
    def release_requested(self) -> ReleaseRequested:
        """The first request to release the lock: ``await lease.release_requested``, or use its ``is_set()``.

        ``lease.release_requests`` says who asked, and why.
        """
        requested = self._requested
        if requested is None:
            requested = self._requested = ReleaseRequested(self._hold)
        return requested

    def cancel_on_loss(self) -> CancelOnLoss:
        """Cancel the body of an ``async with`` when the lease is lost, much like ``asyncio.timeout``.

            async with lock.acquire() as lease, lease.cancel_on_loss():
                ...

        The body gets CancelledError at its next ``await``, and the ``async with`` raises LeaseLost, even
        after a normal end. Other cancellations pass unchanged. Code that blocks the loop runs on, so check
        :meth:`ensure_held` before it writes.

        Raises:
            LeaseLost, NotHeld: On entry, if the lease is not valid; LeaseLost at the end, if it was lost.
        """
        return CancelOnLoss(self)

    async def confirm(self) -> None:
        """Ask the store about the claim; see :meth:`lockkit.Lease.confirm`. A cancelled call changes nothing.

        Raises:
            LeaseLost, NotHeld: As :meth:`ensure_held`.
            BackendError: No answer in time; the lease is as valid as before.
        """
        self._require_own()
        await self._engines.call(partial(self._driver.requests.confirm, self._hold))

    async def extend(self, ttl: float) -> None:
        """Use a longer ttl from now on; see :meth:`lockkit.Lease.extend`. A cancelled call may take effect.

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
        await self._extend(ttl)

    async def lengthen(self, ttl: float, patience: float | None) -> None:
        """See :meth:`lockkit.sync.lease.Lease.lengthen`."""
        if self._shorter(ttl):
            await self._extend(ttl, patience)

    async def _extend(self, ttl: float, patience: float | None = None) -> None:
        await self._engines.call(
            partial(self._driver.requests.extend, self._hold, self._longer(ttl), patience)
        )

    async def simulate_loss(self) -> None:
        """Lose the lease now, as if it had not been renewed in time; see :meth:`lockkit.Lease.simulate_loss`.

        Raises:
            LeaseLost, NotHeld: As :meth:`ensure_held`.
        """
        self._require_own()
        self.lapse()
        await self.hear_out()

    async def hear_out(self) -> None:
        """Wait until the callbacks of all losses so far have returned, 5 s at most."""
        await self._engines.call_on_thread(partial(self._driver.dispatcher.flush, 5.0))

    async def release(self, reason: Reason = "normal", *, raise_failed: bool = False) -> ReleaseReport:
        """Run the release pipeline: cleanup hooks, normal release, owner-checked emergency release.

        Idempotent; takes at most the sum of the budgets. If the caller is cancelled, a separate task
        continues, and the CancelledError is raised at the end. If the loop stops for good, a thread
        continues. In a forked child, and on an inner level of a reentrant hold, nothing is released (KEPT).

        Args:
            reason: Kept in events, journal and metrics.
            raise_failed: Raise if no layer got a definite answer.

        Raises:
            ReleaseFailed: Only with ``raise_failed``.
        """
        try:
            begun = self._begin(reason)
            if isinstance(begun, ReleaseReport):
                report = begun
            else:
                report = self._report = await begun.result()
        except BaseException:
            if self._hold.report is None:  # cut short
                self._opening.look()
            raise
        if raise_failed:
            self._raise_failed(report)
        return report

    def release_now(self, reason: Reason = "normal") -> ReleaseReport:
        """Release from a plain function: as :meth:`release`, but blocks the event loop until the end.

        Args:
            reason: Kept in events, journal and metrics.
        """
        hold = self._hold
        if self._report is None:
            if inert(hold) or hold.reserved_by == threading.get_ident():
                # A handler in the middle of its release.
                return kept(hold, reason)
            self.level.left = True
            if hold.leave(self):
                self._report = self._driver.releases.release(hold, reason, self.within)
                self._driver.registry.change(hold.claim.terms.name, old=hold)
            else:
                hold.handed_back(self)
                self._report = kept(hold, reason)
        return self._report

    def begin_release(self, reason: Reason) -> None:
        """Start the release, if there is one, in a separate task; :meth:`release` then waits for its end."""
        try:
            begun = self._begin(reason)
            if not isinstance(begun, ReleaseReport):
                begun.apart()
        except BaseException:  # of a signal handler: the background continues
            self._opening.look()
            raise

    def _begin(self, reason: Reason) -> ReleaseReport | LoopRelease:
        """The release of the hold, on the running loop; a report if there is nothing to release any more."""
        if self._report is not None:
            return self._report
        hold = self._hold
        if inert(hold):
            return kept(hold, reason)
        self.level.left = True
        if not hold.leave(self):
            hold.handed_back(self)
            self._report = kept(hold, reason)
            return self._report
        work = self._work
        if work is None or work.loop is not asyncio.get_running_loop():
            if hold.report is not None:
                self._report = hold.report
                return self._report
            work = self._work = self._engines.here(self._driver).release(hold, reason)
        return work  # also if it is over: it raises what interrupted it

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
        kind: type[BaseException] | None,  # noqa: ARG002
        error: BaseException | None,
        traceback: TracebackType | None,  # noqa: ARG002
    ) -> None:
        """Release the lease at the end of its statement."""
        self.level.left = (
            True  # first, without a call: a signal in what follows leaves the rest to the background
        )
        if isinstance(error, GeneratorExit) and not may_wait(error):
            self._hold.leave()
            self._opening.look()
            return
        report = await self.release("normal" if error is None else "error")
        if statement is not None:
            statement.over()
            self.level.statement = None  # else a cycle
        self.over(report, error)

    __aexit__ = Exit(leave)


def may_wait(error: GeneratorExit) -> bool:
    """Whether the code that a GeneratorExit ends may wait for something.

    An asynchronous generator may, since ``aclose()`` is awaited, by the event loop too if one was collected;
    a closed or collected coroutine may not. The error was thrown into the traceback's innermost frame.
    """
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or not trace.tb_frame.f_code.co_flags & inspect.CO_ASYNC_GENERATOR:
        return False
    try:
        return asyncio.current_task() is not None
    except RuntimeError:  # there is no running loop
        return False


class AsyncLeaseCopy:
    """The handle of a claim of another or earlier process: as :class:`~lockkit.LeaseCopy`, with ``await``."""

    def __init__(self, copy: LeaseCopy, engines: Engines) -> None:
        self._copy = copy
        self._engines = engines

    @property
    def name(self) -> str:
        return self._copy.name

    @property
    def fence(self) -> int:
        """The fencing token of the claim."""
        return self._copy.fence

    @property
    def claim_id(self) -> str:
        """The name of the claim outside of its process."""
        return self._copy.claim_id

    def valid(self) -> bool:
        """Return False: a copy does not know whether its claim is held."""
        return False

    def handle(self) -> dict[str, object]:
        """The handle of the claim, as :meth:`AsyncLease.handle` returns it."""
        return self._copy.handle()

    async def held(self) -> bool:
        """See :meth:`lockkit.LeaseCopy.held`."""
        return await self._engines.call(self._copy.held)

    async def extend(self, ttl: float) -> None:
        """See :meth:`lockkit.LeaseCopy.extend`. A cancelled call may take effect all the same."""
        await self._engines.call(partial(self._copy.extend, ttl))

    async def release(self, reason: Reason = "normal") -> ReleaseReport:
        """See :meth:`lockkit.LeaseCopy.release`."""
        return await self._engines.call(partial(self._copy.release, reason))

    def __repr__(self) -> str:
        return f"<AsyncLeaseCopy {self.name!r} claim {self.claim_id} fence {self.fence}>"
