"""Locks taken together, in a program with asyncio: all of several locks, or any one of them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from lockkit.aio.lease import AsyncLease
from lockkit.aio.leases import AsyncLeases
from lockkit.aio.locks import AsyncLock
from lockkit.aio.shortform import Acquiring, AsyncLeft, AsyncShortForm
from lockkit.lib.caller import Caller, caller
from lockkit.lib.leaving import Held
from lockkit.protocol.attempt import Attempt
from lockkit.protocol.call import Call, OnWait
from lockkit.protocol.composing import PlaceLost, Steps, all_of
from lockkit.shared.composites import AnyAllOf, AnyAnyOf, AnyTaking
from lockkit.shared.options import DEFAULT, Default

if TYPE_CHECKING:
    from lockkit.aio.engines import Engines
    from lockkit.drivers.aio import LoopDriver
    from lockkit.errors import AcquireTimeout
    from lockkit.shared.composites import Request

__all__ = ["AsyncAllOf", "AsyncAnyOf", "AsyncComposite", "AsyncTaking"]

H = TypeVar("H", bound=Held)
S = TypeVar("S", bound=AsyncLeft)


class AsyncTaking(AnyTaking):
    """One acquisition of several locks by a task, made by :meth:`begin`."""

    engine: LoopDriver

    @classmethod
    async def begin(cls, engines: Engines, call: Call, taken_at: Caller) -> Self:
        """Open the store if necessary, and make the object; see :class:`lockkit.sync.composites.Taking`."""
        wait = call.timeout
        deadline = engines.opening.clock.now() + wait if wait else None
        engine = engines.ready() or await engines.engine(wait)
        taking = cls(engines.opening, engine.driver, call, deadline, taken_at)
        taking.engine = engine
        return taking

    async def run(
        self, steps: Steps, locks: Mapping[Attempt, AsyncLock], made: Callable[[list[AsyncLease]], H]
    ) -> H | None:
        """As :meth:`lockkit.sync.composites.Taking.run`."""
        engine, together = self.engine, self.together
        try:
            got = await engine.acquire_together(together, steps)
            if got is None:
                return None
            # No await from here on, so that no cancellation comes between the grants and the leases.
            return self.handed(got, locks, made)
        except BaseException:
            together.over = True  # first, without a call: after a signal the background removes the claims
            try:
                engine.take_back(together)
            finally:
                if together in engine.driver.under_way:
                    self.opening.look()
            raise


class AsyncComposite(AsyncShortForm[S]):
    """A factory of leases on several locks, which are taken together."""

    _engines: Engines

    async def _taken(self, taking: AsyncTaking, wanted: Request | None) -> S | None:
        """Run an acquisition; None only on a definite "busy"."""
        raise NotImplementedError

    def _denied(self, taking: AsyncTaking, wanted: Request | None) -> AcquireTimeout:
        """The error of an acquire that does not wait, and found a lock busy."""
        raise NotImplementedError

    async def _take(self, call: Call, taken_at: Caller, wanted: Request | None = None) -> S | None:
        while True:
            taking = await AsyncTaking.begin(self._engines, call, taken_at)
            try:
                got = await self._taken(taking, wanted)
            except PlaceLost as lost:
                call = taking.again(lost)
                continue
            # No call may come between: a signal must not strike where only this frame has the leases.
            if got is not None or call.tries:
                return got
            raise self._denied(taking, wanted)


class AsyncAllOf(AnyAllOf[AsyncLeases, AsyncLock], AsyncComposite[AsyncLeases]):
    """A factory of leases on several locks, by :meth:`AsyncClient.all_of`; see :class:`~lockkit.AllOf`.

    ``async with client.all_of([a, b]):`` is the short form. A cancelled acquire leaves nothing in the store.

    Attributes:
        locks: The locks, sorted by name, each once.
    """

    def __init__(self, engines: Engines, locks: Iterable[AsyncLock], timeout: float | None) -> None:
        super().__init__(engines.opening, locks, timeout, AsyncLock)
        self._engines = engines

    if TYPE_CHECKING:  # pyright does not find the type through both base classes

        @property
        def lease(self) -> AsyncLeases: ...

    def acquire(
        self,
        timeout: float | Default | None = DEFAULT,
        *,
        reason: str | None = None,
        on_wait: OnWait | None = None,
        detect_deadlock: bool = False,
    ) -> Acquiring[AsyncLeases]:
        """Wait for all of the locks and hold them: ``await`` it, or ``async with both.acquire() as leases:``.

        Arguments as for :meth:`lockkit.AllOf.acquire`; ``on_wait`` is a plain function, called in the loop.

        Raises:
            AcquireTimeout: The time is up; the error names the lock that was not held by then. Nothing is
                left in any queue, or the background removes it.
            LeaseLost: A lock was lost (evicted, for instance) during the wait; the others were given back.
            AcquireError, BackendError, ConfigError: As :meth:`AsyncLock.acquire`; the error names the lock.
        """
        call = self._called(timeout, reason=reason, on_wait=on_wait, detect=detect_deadlock)
        return Acquiring(self._take(call, caller()))

    def try_acquire(self, *, reason: str | None = None) -> Coroutine[Any, Any, AsyncLeases | None]:
        """Hold all locks if free now; None only if one is definitely busy, after giving back the others.

        Raises:
            CapacityMismatch, BackendError: As :meth:`acquire`. A failing store is never reported as busy.
        """
        return self._take(self._called(0.0, reason=reason, tries=True), caller())

    async def _taken(self, taking: AsyncTaking, _wanted: Request | None) -> AsyncLeases | None:
        levels: list[AsyncLease] = []
        try:
            attempts: dict[Attempt, AsyncLock] = {}
            for lock in self.locks:
                level = await lock.level(taking.driver, taking.key, taking.taken_at, taking.call.timeout)
                if level is not None:
                    levels.append(level)
                else:
                    attempts[taking.attempt(lock, wait=taking.waits, one_of=len(self.locks))] = lock
            steps = all_of(taking.together, tuple(attempts), taking.driver.tools)
            leases = await taking.run(
                steps, attempts, lambda got: AsyncLeases(self._ordered([*levels, *got]))
            )
            if leases is None:
                for level in levels:
                    await level.release()
            return leases
        except BaseException:
            for lease in levels:
                lease.level.left = True
            raise


class AsyncAnyOf(AnyAnyOf[AsyncLease, AsyncLock], AsyncComposite[AsyncLease]):
    """A factory of leases on one of several, made by :meth:`AsyncClient.any_of`; see :class:`~lockkit.AnyOf`.

    Attributes:
        locks: The locks, in the given order, each once.
    """

    def __init__(self, engines: Engines, locks: Iterable[AsyncLock], timeout: float | None) -> None:
        super().__init__(engines.opening, locks, timeout, AsyncLock)
        self._engines = engines

    if TYPE_CHECKING:  # pyright does not find the type through both base classes

        @property
        def lease(self) -> AsyncLease: ...

    def acquire(
        self,
        timeout: float | Default | None = DEFAULT,
        *,
        reason: str | None = None,
        on_wait: OnWait | None = None,
        detect_deadlock: bool = False,
    ) -> Acquiring[AsyncLease]:
        """Wait for one of the locks and hold it: ``await`` it, or ``async with one.acquire() as lease:``.

        Arguments as for :meth:`lockkit.AnyOf.acquire`; ``on_wait`` is a plain function, called in the loop.

        Raises:
            AcquireTimeout: The time is up. Nothing is left in any queue, or the background removes it.
            DeadlockDetected: This task would wait for itself at every one of the locks.
            AcquireError, BackendError, ConfigError: As :meth:`AsyncLock.acquire`, for the first failure.
        """
        call = self._called(timeout, reason=reason, on_wait=on_wait, detect=detect_deadlock)
        return Acquiring(self._take(call, caller()))

    def try_acquire(self, *, reason: str | None = None) -> Coroutine[Any, Any, AsyncLease | None]:
        """Hold the first of the locks that is free now; None only if each is definitely busy.

        Raises:
            CapacityMismatch, BackendError: As :meth:`acquire`. A failing store is never reported as busy.
        """
        return self._take(self._called(0.0, reason=reason, tries=True), caller())

    async def _taken(self, taking: AsyncTaking, _wanted: Request | None) -> AsyncLease | None:
        steps, attempts = self._steps(taking)
        return await taking.run(steps, attempts, lambda got: got[0])
