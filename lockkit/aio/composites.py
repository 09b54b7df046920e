"""Locks taken together, in a program with asyncio: all of several locks, or any one of them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from lockkit.aio.lease import AsyncLease
from lockkit.aio.leases import AsyncLeases
from lockkit.aio.locks import AsyncLock
from lockkit.aio.shortform import Acquiring, AsyncShortForm
from lockkit.lib.caller import Caller, caller
from lockkit.lib.leaving import Held
from lockkit.protocol.attempt import Attempt
from lockkit.protocol.composing import PlaceLost, Steps, all_of
from lockkit.shared.composites import AnyAllOf, AnyAnyOf, AnyTaking, check_call
from lockkit.shared.locks import checked_timeout
from lockkit.shared.options import DEFAULT, Default

if TYPE_CHECKING:
    from lockkit.aio.engines import Engines
    from lockkit.drivers.aio import LoopDriver
    from lockkit.drivers.waits import OnWait

__all__ = ["AsyncAllOf", "AsyncAnyOf", "AsyncTaking"]

H = TypeVar("H", bound=Held)


class AsyncTaking(AnyTaking):
    """One acquisition of several locks by a task, made by :meth:`begin`."""

    engine: LoopDriver

    @classmethod
    async def begin(
        cls,
        engines: Engines,
        wait: float | None,
        on_wait: OnWait | None,
        taken_at: Caller,
        *,
        detect: bool = False,
        reason: str | None = None,
    ) -> Self:
        """Open the store if necessary, and make the object; see :class:`lockkit.sync.composites.Taking`."""
        deadline = engines.opening.clock.now() + wait if wait else None
        engine = engines.ready() or await engines.engine(wait)
        taking = cls(
            engines.opening, engine.driver, deadline, on_wait, taken_at, detect=detect, reason=reason
        )
        taking.engine = engine
        return taking

    async def run(
        self, steps: Steps, locks: Mapping[Attempt, AsyncLock], made: Callable[[list[AsyncLease]], H]
    ) -> H | None:
        """As :meth:`lockkit.sync.composites.Taking.run`."""
        engine, together = self.engine, self.together
        try:
            got = await engine.acquire_together(together, steps, self._on_wait)
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


class AsyncAllOf(AnyAllOf[AsyncLeases, AsyncLock], AsyncShortForm[AsyncLeases]):
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
        wait = self._timeout if isinstance(timeout, Default) else checked_timeout(timeout)
        check_call(self.name, self.locks, on_wait, detect_deadlock, reason=reason)
        return Acquiring(self._acquired(wait, on_wait, caller(), detect=detect_deadlock, reason=reason))

    def try_acquire(self, *, reason: str | None = None) -> Coroutine[Any, Any, AsyncLeases | None]:
        """Hold all locks if free now; None only if one is definitely busy, after giving back the others.

        Raises:
            CapacityMismatch, BackendError: As :meth:`acquire`. A failing store is never reported as busy.
        """
        check_call(self.name, self.locks, reason=reason)
        return self._tried(caller(), reason)

    def _once(self, taken_at: Caller) -> Coroutine[Any, Any, AsyncLeases]:
        return self._acquired(self._timeout, None, taken_at)

    async def _acquired(
        self,
        wait: float | None,
        on_wait: OnWait | None,
        taken_at: Caller,
        *,
        detect: bool = False,
        reason: str | None = None,
    ) -> AsyncLeases:
        leases, taking = await self._take(wait, on_wait, taken_at, detect=detect, reason=reason)
        if leases is None:
            raise self._refused(taking.busy)
        return leases

    async def _tried(self, taken_at: Caller, reason: str | None) -> AsyncLeases | None:
        return (await self._take(0.0, None, taken_at, reason=reason))[0]

    async def _take(
        self,
        wait: float | None,
        on_wait: OnWait | None,
        taken_at: Caller,
        *,
        detect: bool = False,
        reason: str | None = None,
    ) -> tuple[AsyncLeases | None, AsyncTaking]:
        while True:
            taking = await AsyncTaking.begin(
                self._engines, wait, on_wait, taken_at, detect=detect, reason=reason
            )
            try:
                return await self._taken(taking, wait), taking
            except PlaceLost as lost:
                wait = taking.left_to_wait(wait, lost)

    async def _taken(self, taking: AsyncTaking, wait: float | None) -> AsyncLeases | None:
        levels: list[AsyncLease] = []
        try:
            attempts: dict[Attempt, AsyncLock] = {}
            for lock in self.locks:
                level = await lock.level(taking.driver, taking.key, taking.taken_at, wait)
                if level is not None:
                    levels.append(level)
                else:
                    attempts[taking.attempt(lock, wait=wait != 0, one_of=len(self.locks))] = lock
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


class AsyncAnyOf(AnyAnyOf[AsyncLease, AsyncLock], AsyncShortForm[AsyncLease]):
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
        wait = self._timeout if isinstance(timeout, Default) else checked_timeout(timeout)
        check_call(self.name, self.locks, on_wait, detect_deadlock, reason=reason)
        return Acquiring(self._acquired(wait, on_wait, caller(), detect=detect_deadlock, reason=reason))

    def try_acquire(self, *, reason: str | None = None) -> Coroutine[Any, Any, AsyncLease | None]:
        """Hold the first of the locks that is free now; None only if each is definitely busy.

        Raises:
            CapacityMismatch, BackendError: As :meth:`acquire`. A failing store is never reported as busy.
        """
        check_call(self.name, self.locks, reason=reason)
        return self._tried(caller(), reason)

    def _once(self, taken_at: Caller) -> Coroutine[Any, Any, AsyncLease]:
        return self._acquired(self._timeout, None, taken_at)

    async def _acquired(
        self,
        wait: float | None,
        on_wait: OnWait | None,
        taken_at: Caller,
        *,
        detect: bool = False,
        reason: str | None = None,
    ) -> AsyncLease:
        lease, taking = await self._take(wait, on_wait, taken_at, detect=detect, reason=reason)
        if lease is None:
            raise self._refused(taking.busy)
        return lease

    async def _tried(self, taken_at: Caller, reason: str | None) -> AsyncLease | None:
        return (await self._take(0.0, None, taken_at, reason=reason))[0]

    async def _take(
        self,
        wait: float | None,
        on_wait: OnWait | None,
        taken_at: Caller,
        *,
        detect: bool = False,
        reason: str | None = None,
    ) -> tuple[AsyncLease | None, AsyncTaking]:
        taking = await AsyncTaking.begin(self._engines, wait, on_wait, taken_at, detect=detect, reason=reason)
        steps, attempts = self._steps(taking, wait=wait != 0)
        return await taking.run(steps, attempts, lambda got: got[0]), taking
