"""The locks of the asyncio face."""

from __future__ import annotations

import weakref
from collections.abc import Coroutine, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Never

from lockkit.aio.lease import AsyncLease
from lockkit.aio.shortform import Acquiring, AsyncShortForm
from lockkit.facts import Kind
from lockkit.lib.caller import Caller, caller
from lockkit.lib.takers import asker
from lockkit.protocol import denials
from lockkit.protocol.call import Call, OnWait
from lockkit.shared.locks import AnyLock, arguments
from lockkit.shared.options import DEFAULT, Default, Options
from lockkit.values.habits import Answering, unexpected

if TYPE_CHECKING:
    from lockkit.aio.engines import Engines
    from lockkit.drivers.threads import Driver

__all__ = ["AsyncLock", "AsyncRWLock", "build"]


def build(
    engines: Engines,
    name: str,
    kind: Kind,
    weight: int,
    capacity: int,
    options: Options,
    *,
    pooled: bool = False,
) -> AsyncLock:
    """Make a lock; see :func:`lockkit.sync.locks.build`."""
    return AsyncLock(
        engines, arguments(engines.opening, name, kind, weight, capacity, options, pooled=pooled)
    )


class AsyncLock(AnyLock[AsyncLease], AsyncShortForm[AsyncLease]):
    """A reusable factory of leases on one name, for asyncio: as :class:`~lockkit.Lock`, with ``await``.

    ``async with lock:`` is the short form; ``async with lock.acquire() as lease:`` also gives you the lease.
    Tasks of all event loops may use it at once. A statement releases its own lease, even in another task.

    If the task is cancelled while it acquires, nothing is left in the store: the background removes the
    claim. If it is cancelled while it releases, the release is finished first.
    """

    def __init__(self, engines: Engines, given: Mapping[str, Any]) -> None:
        self._engines = engines
        self._makes = partial(AsyncLease, engines)
        super().__init__(engines.opening, **given)

    if TYPE_CHECKING:  # pyright does not find the type through both base classes

        @property
        def lease(self) -> AsyncLease: ...

    def acquire(
        self,
        timeout: float | Default | None = DEFAULT,
        *,
        note: Mapping[str, object] | None = None,
        reason: str | None = None,
        on_wait: OnWait | None = None,
        detect_deadlock: bool = False,
        **others: Never,
    ) -> Acquiring[AsyncLease]:
        """Wait for the lock and hold it: ``await`` it, or ``async with lock.acquire() as lease:``.

        Args:
            timeout: Seconds to wait in all; None for ever, 0 not to wait; by default the timeout of the lock.
            note: A JSON object that ``inspect`` shows with the claim.
            reason: Why the lock is taken, in one line of at most 200 characters: shown wherever the holder is
                shown, also to those who time out.
            on_wait: A plain function, called in the event loop when the claim is queued, when its position or
                the holder changes, and otherwise every two seconds.
            detect_deadlock: As for :meth:`lockkit.Lock.acquire`.
            others: No other keyword is allowed. The error for another library's keyword says what to write.

        Raises:
            TypeError: There is another keyword.
            AcquireTimeout: The time is up. Nothing is left in the store, or the background removes it.
            DeadlockDetected: This task holds the lock and would wait for itself, directly or behind a waiter
                that needs its locks; or it is the youngest ``detect_deadlock`` waiter of a deadlock.
            CapacityMismatch: Others use the name with another capacity.
            AcquireCancelled: The client was closed meanwhile, or the interpreter is ending.
            BackendError: The store cannot be used, and the lock is not held.
            ConfigError: An argument is not allowed, or the URL does not fit the server or file behind it.
        """
        if others:
            raise unexpected("AsyncLock.acquire()", others, self._own_timeout())
        call = self._called(timeout, note=note, reason=reason, on_wait=on_wait, detect=detect_deadlock)
        return Acquiring(self._take(call, caller()))

    def try_acquire(
        self, *, note: Mapping[str, object] | None = None, reason: str | None = None
    ) -> Coroutine[Any, Any, AsyncLease | None]:
        """Hold the lock if it is free now; None only on a definite "busy".

        Raises:
            CapacityMismatch, BackendError: As :meth:`acquire`. A failing store is never reported as busy.
        """
        return self._take(self._called(0.0, note=note, reason=reason, tries=True), caller())

    async def available(self) -> int:
        """See :meth:`lockkit.Lock.available`."""
        return await self._engines.call(self._available)

    async def _take(self, call: Call, taken_at: Caller) -> AsyncLease | None:
        wait = call.timeout
        opening = self._opening
        deadline = None if wait is None else opening.clock.now() + wait
        engine = self._engines.ready() or await self._engines.engine(wait)
        driver = engine.driver
        if opening.here.first:
            opening.begin()
        key = asker()
        if self._reentrant:
            inner = await self.level(driver, key, taken_at, wait)
            if inner is not None:
                return inner
        attempt = self.attempt(driver, deadline, key, taken_at, call, wait=wait != 0)
        try:
            hold = await engine.acquire(attempt)
            # No await from here on, so that no cancellation comes between the grant and the lease.
            if hold is not None:
                lease = self.lease_of(driver, hold, taken_at)
                driver.under_way.pop(attempt, None)
                attempt.sent = False
                return lease
        except BaseException:
            attempt.over = True  # first, without a call: after a signal the background removes the claim
            try:
                engine.take_back(attempt)
            finally:
                if attempt in driver.under_way:
                    opening.look()
            raise
        if call.tries:
            return None
        raise denials.busy((self.name,), self.name, attempt.holder, opening.clock.wall())

    async def level(
        self, driver: Driver, key: weakref.ref[object], taken_at: Caller, wait: float | None
    ) -> AsyncLease | None:
        """Add a level to a reentrant hold of the task, with the longest ttl of all; None without a hold."""
        lease = self._inner(driver, key, taken_at) if self._reentrant else None
        if lease is None:
            return None
        try:
            if not lease.valid():
                why = lease.invalid()  # before the release, after which it would be one that was released
                await lease.release()
                raise why
            await lease.lengthen(self.terms.ttl, wait or None)
            return self._kept(lease)
        except BaseException:
            lease.level.left = True  # the caller never gets this level's lease
            raise


class AsyncRWLock(Answering):
    """A reader/writer lock: many readers, or one writer. Claims are served in order, so none starves."""

    def __init__(self, reader: AsyncLock, writer: AsyncLock) -> None:
        self._reader = reader
        self._writer = writer

    def read(self) -> AsyncLock:
        """The shared side."""
        return self._reader

    def write(self) -> AsyncLock:
        """The exclusive side."""
        return self._writer
