"""Locks: reusable factories of leases, and the function that builds them from options."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Never

from lockkit.facts import Kind
from lockkit.lib.caller import Caller, caller
from lockkit.lib.loops import warn_of_loop
from lockkit.lib.takers import THREAD, asker
from lockkit.protocol import denials
from lockkit.protocol.call import TRY, Call, OnWait
from lockkit.shared.locks import AnyLock, arguments
from lockkit.shared.options import DEFAULT, Default, Options
from lockkit.sync.lease import Lease
from lockkit.sync.shortform import ShortForm
from lockkit.values.cancelling import Cancel
from lockkit.values.habits import Answering, unexpected

if TYPE_CHECKING:
    from lockkit.drivers.threads import Driver
    from lockkit.shared.opening import Opening

__all__ = ["Lock", "RWLock", "build"]


def build(
    opening: Opening,
    name: str,
    kind: Kind,
    weight: int,
    capacity: int,
    options: Options,
    *,
    pooled: bool = False,
) -> Lock:
    """Make a lock, and check its name and options before any I/O.

    Raises:
        ConfigError: The name or an option is not allowed; the error says what is allowed.
        CapabilityError: The store does not support an option.
    """
    return Lock(opening, **arguments(opening, name, kind, weight, capacity, options, pooled=pooled))


class Lock(AnyLock[Lease], ShortForm[Lease]):
    """A reusable, thread-safe factory of leases on one name, with one weight and capacity.

    ``with lock:`` is the short form; ``with lock.acquire() as lease:`` also gives you the lease. Each
    ``with`` statement, and each block that ``contextlib.ExitStack`` enters, releases the lease that it took,
    even in another thread or task. Call ``__exit__`` yourself only in the thread or task that called
    ``__enter__``: elsewhere it raises NotHeld, and the lease lasts until the first one is over.

    Attributes:
        terms: The terms of the lock's claims, as the store gets them.
        tokens: A function that makes a claim's token, called just before the claim is first sent; None for a
            random token. Set it if another process is to release the claim after this one died: the function
            can save the token first. An exception that it raises ends the acquire.
    """

    _makes = Lease

    if TYPE_CHECKING:  # pyright does not find the type through both base classes

        @property
        def lease(self) -> Lease: ...

    def acquire(
        self,
        timeout: float | Default | None = DEFAULT,
        *,
        note: Mapping[str, object] | None = None,
        reason: str | None = None,
        on_wait: OnWait | None = None,
        cancel: Cancel | None = None,
        detect_deadlock: bool = False,
        **others: Never,
    ) -> Lease:
        """Wait for the lock and hold it.

        Args:
            timeout: Seconds to wait in all; None for ever, 0 not to wait; by default the timeout of the lock.
            note: A JSON object that ``inspect`` shows with the claim.
            reason: Why the lock is taken, in one line of at most 200 characters: shown wherever the holder is
                shown, also to those who time out.
            on_wait: Called in this thread when the claim is queued, when its position or the holder changes,
                and otherwise every two seconds.
            cancel: Ends the wait from another thread; see :class:`lockkit.Cancel`.
            detect_deadlock: Whether the wait looks for a deadlock of threads, tasks and processes, from 1 s
                on; see :meth:`Client.deadlocks`. Each look reads all queues of the namespace, up to 1,000.
            others: No other keyword is allowed. The error for another library's keyword says what to write.

        Raises:
            TypeError: There is another keyword.
            AcquireTimeout: The time is up. Nothing is left in the store, or the background removes it.
            DeadlockDetected: This thread or task holds the lock and would wait for itself, directly or behind
                a waiter that needs its locks; or it is the youngest ``detect_deadlock`` waiter of a deadlock.
            CapacityMismatch: Others use the name with another capacity.
            AcquireCancelled: The wait was cancelled, the client was closed, or the interpreter is ending.
            BackendError: The store cannot be used, and the lock is not held.
            ConfigError: The URL does not fit the server or file that it points at.
        """
        if others:
            raise unexpected("Lock.acquire()", others, self._own_timeout())
        call = self._as_made
        plain = timeout is DEFAULT and note is None and reason is None and on_wait is None
        if not plain or cancel is not None or detect_deadlock is not False:
            call = self._called(
                timeout, note=note, reason=reason, on_wait=on_wait, cancel=cancel, detect=detect_deadlock
            )
        lease = self._take(call)
        # No call may come between: a signal must not strike where only this frame has the lease.
        assert lease is not None
        return lease

    def try_acquire(
        self, *, note: Mapping[str, object] | None = None, reason: str | None = None
    ) -> Lease | None:
        """Hold the lock if it is free now; None only on a definite "busy".

        Raises:
            CapacityMismatch, BackendError: As :meth:`acquire`. A failing store is never reported as busy.
        """
        plain = note is None and reason is None
        return self._take(TRY if plain else self._called(0.0, note=note, reason=reason, tries=True))

    def available(self) -> int:
        """How many permits of a semaphore a new claim could get at once; 0 while an older one waits.

        For a mutex, and for either side of a reader/writer lock, 1 if it is free and 0 if not. One round
        trip; the answer may be out of date when it arrives: use :meth:`try_acquire` to take only a free lock.

        Raises:
            BackendError: There was no answer.
        """
        return self._available()

    def _take(self, call: Call) -> Lease | None:
        wait = call.timeout
        opening = self._opening
        deadline = None if wait is None else opening.clock.now() + wait
        driver = opening.here.driver
        if driver is None or not driver.origin.is_here():
            driver = opening.driver(wait)
        if opening.here.first:
            opening.begin()
        key = asker()
        taken_at = caller()
        if key is not THREAD.key and wait != 0.0:
            warn_of_loop(self.terms.name, taken_at)
        if self._reentrant:
            inner = self.level(driver, key, taken_at, wait)
            if inner is not None:
                return inner
        attempt = self.attempt(driver, deadline, key, taken_at, call, wait=wait != 0)
        try:
            hold = driver.acquire(attempt)
            if hold is not None:
                lease = self.lease_of(driver, hold, taken_at)
                driver.under_way.pop(attempt, None)
                attempt.sent = False
                return lease
        except BaseException:
            attempt.over = True  # first, without a call: after a signal the background removes the claim
            try:
                driver.take_back(attempt)
            finally:
                if attempt in driver.under_way:
                    opening.look()
            raise
        if call.tries:
            return None
        raise denials.busy((self.name,), self.name, attempt.holder, opening.clock.wall())

    def level(
        self, driver: Driver, key: weakref.ref[object], taken_at: Caller, wait: float | None
    ) -> Lease | None:
        """Add a level to a reentrant hold of this thread or task, with the longest ttl; None without one."""
        lease = self._inner(driver, key, taken_at) if self._reentrant else None
        if lease is None:
            return None
        try:
            if not lease.valid():
                why = lease.invalid()  # before the release, after which it would be one that was released
                lease.release()
                raise why
            lease.lengthen(self.terms.ttl, wait or None)
            return self._kept(lease)
        except BaseException:
            # The caller never gets this level's lease. An assignment: a signal could interrupt a call.
            lease.level.left = True
            raise


class RWLock(Answering):
    """A reader/writer lock: many readers, or one writer. Claims are served in order, so none starves."""

    def __init__(self, reader: Lock, writer: Lock) -> None:
        self._reader = reader
        self._writer = writer

    def read(self) -> Lock:
        """The shared side."""
        return self._reader

    def write(self) -> Lock:
        """The exclusive side."""
        return self._writer
