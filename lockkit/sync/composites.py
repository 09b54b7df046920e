"""Locks taken together: all of several locks, or any one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

from lockkit.lib.caller import caller
from lockkit.lib.leaving import Held
from lockkit.lib.loops import warn_of_loop
from lockkit.lib.takers import THREAD
from lockkit.protocol.attempt import Attempt
from lockkit.protocol.composing import PlaceLost, Steps, all_of
from lockkit.shared.composites import AnyAllOf, AnyAnyOf, AnyTaking, check_call
from lockkit.shared.locks import checked_timeout
from lockkit.shared.options import DEFAULT, Default
from lockkit.sync.lease import Lease
from lockkit.sync.leases import Leases
from lockkit.sync.locks import Lock
from lockkit.sync.shortform import ShortForm
from lockkit.values.cancelling import Cancel

if TYPE_CHECKING:
    from lockkit.drivers.waits import OnWait
    from lockkit.shared.opening import Opening

__all__ = ["AllOf", "AnyOf", "Taking"]

H = TypeVar("H", bound=Held)


class Taking(AnyTaking):
    """One acquisition of several locks by a thread or task: what it is made with, and what it leaves.

    Args:
        opening: The client.
        wait: Seconds to wait in all; None to wait for ever, 0 not to wait.
        what: The locks, as a warning names them.
        locks: The locks.
        on_wait: Called as that of :meth:`lockkit.Lock.acquire`.
        cancel: Ends the wait from another thread.
        detect: Whether to look for deadlocks with other threads, tasks and processes while it waits.
        reason: Why the locks are taken; None for the reason of each lock, if it has one.
    """

    def __init__(
        self,
        opening: Opening,
        wait: float | None,
        what: str,
        locks: Iterable[Lock],
        on_wait: OnWait | None,
        cancel: Cancel | None = None,
        *,
        detect: bool = False,
        reason: str | None = None,
    ) -> None:
        check_call(what, locks, on_wait, detect, cancel, reason)
        deadline = opening.clock.now() + wait if wait else None
        driver = opening.here.driver
        if driver is None or not driver.origin.is_here():
            driver = opening.driver(wait)
        super().__init__(opening, driver, deadline, on_wait, caller(), detect=detect, reason=reason)
        self.together.cancel = cancel
        if self.key is not THREAD.key and wait != 0.0:
            warn_of_loop(what, self.taken_at)

    def run(self, steps: Steps, locks: dict[Attempt, Lock], made: Callable[[list[Lease]], H]) -> H | None:
        """Acquire, and make what the caller gets of the leases; None only on a definite "busy".

        Args:
            steps: The acquisition.
            locks: The lock of each attempt.
            made: Makes what the caller gets. Nothing has handles of the holds before that.
        """
        driver, together = self.driver, self.together
        try:
            got = driver.acquire_together(together, steps, self._on_wait)
            if got is None:
                return None
            return self.handed(got, locks, made)
        except BaseException:
            together.over = True  # first, without a call: after a signal the background removes the claims
            try:
                driver.take_back(together)
            finally:
                if together in driver.under_way:
                    self.opening.look()
            raise


class AllOf(AnyAllOf[Leases, Lock], ShortForm[Leases]):
    """A reusable, thread-safe factory of leases on several locks, made by :meth:`lockkit.Client.all_of`.

    The locks are acquired in the order of their names, whatever order they were given in, under one timeout.
    So two acquisitions of this kind never wait for each other. Held locks are renewed while it waits for the
    next one; if that was late, as in a stopped process, the acquisition starts again.

    ``with client.all_of([a, b]):`` is the short form, as for :class:`~lockkit.Lock`.

    Attributes:
        locks: The locks, sorted by name, each once.
    """

    def __init__(self, opening: Opening, locks: Iterable[Lock], timeout: float | None) -> None:
        super().__init__(opening, locks, timeout, Lock)

    if TYPE_CHECKING:  # pyright does not find the type through both base classes

        @property
        def lease(self) -> Leases: ...

    def acquire(
        self,
        timeout: float | Default | None = DEFAULT,
        *,
        reason: str | None = None,
        on_wait: OnWait | None = None,
        cancel: Cancel | None = None,
        detect_deadlock: bool = False,
    ) -> Leases:
        """Wait for all of the locks and hold them.

        Args:
            timeout: Seconds to wait in all; None to wait for ever, 0 not to wait; by default as configured.
            reason: Why the locks are taken, kept with each lock's claim; see :meth:`lockkit.Lock.acquire`.
            on_wait: Called as that of :meth:`lockkit.Lock.acquire`, for one lock after the other.
            cancel: Ends the wait from another thread; see :class:`lockkit.Cancel`.
            detect_deadlock: As for :meth:`lockkit.Lock.acquire`.

        Raises:
            AcquireTimeout: The time is up; the error names the lock that was not held by then. Nothing is
                left in any queue, or the background removes it.
            LeaseLost: A lock was lost (evicted, for instance) during the wait; the others were given back.
            AcquireError, BackendError, ConfigError: As :meth:`lockkit.Lock.acquire`, with the lock's name.
        """
        wait = self._timeout if isinstance(timeout, Default) else checked_timeout(timeout)
        busy: list[Attempt] = []
        leases = self._take(wait, on_wait, busy, cancel, detect=detect_deadlock, reason=reason)
        if leases is not None:
            return leases
        raise self._refused(busy[0])

    def try_acquire(self, *, reason: str | None = None) -> Leases | None:
        """Hold all locks if free now; None only if one is definitely busy, after giving back the others.

        Raises:
            CapacityMismatch, BackendError: As :meth:`acquire`. A failing store is never reported as busy.
        """
        return self._take(0.0, None, [], reason=reason)

    def _once(self) -> Leases:
        return self.acquire()

    def _take(
        self,
        wait: float | None,
        on_wait: OnWait | None,
        busy: list[Attempt],
        cancel: Cancel | None = None,
        *,
        detect: bool = False,
        reason: str | None = None,
    ) -> Leases | None:
        while True:
            taking = Taking(
                self._opening, wait, self.name, self.locks, on_wait, cancel, detect=detect, reason=reason
            )
            try:
                return self._taken(taking, wait, busy)
            except PlaceLost as lost:
                wait = taking.left_to_wait(wait, lost)

    def _taken(self, taking: Taking, wait: float | None, busy: list[Attempt]) -> Leases | None:
        levels: list[Lease] = []
        try:
            attempts: dict[Attempt, Lock] = {}
            for lock in self.locks:
                level = lock.level(taking.driver, taking.key, taking.taken_at, wait)
                if level is not None:
                    levels.append(level)
                else:
                    attempts[taking.attempt(lock, wait=wait != 0, one_of=len(self.locks))] = lock
            steps = all_of(taking.together, tuple(attempts), taking.driver.tools)
            leases = taking.run(steps, attempts, lambda got: self._made(levels, got))
            # No call may come between: a signal must not strike where only this frame has the leases.
            if leases is not None:
                return leases
        except BaseException:
            for lease in levels:
                lease.level.left = True
            raise
        for level in levels:
            level.release()
        busy.append(taking.busy)
        return None

    def _made(self, levels: list[Lease], got: list[Lease]) -> Leases:
        return Leases(self._ordered([*levels, *got]), self.look)


class AnyOf(AnyAnyOf[Lease, Lock], ShortForm[Lease]):
    """A reusable, thread-safe factory of leases on one of several, made by :meth:`lockkit.Client.any_of`.

    The locks are tried once in the given order. If all are busy, it waits in all queues, holding nothing; the
    first grant wins, and the other places are given up. ``lease.name`` says which lock it got.

    Attributes:
        locks: The locks, in the given order, each once.
    """

    def __init__(self, opening: Opening, locks: Iterable[Lock], timeout: float | None) -> None:
        super().__init__(opening, locks, timeout, Lock)

    if TYPE_CHECKING:  # pyright does not find the type through both base classes

        @property
        def lease(self) -> Lease: ...

    def acquire(
        self,
        timeout: float | Default | None = DEFAULT,
        *,
        reason: str | None = None,
        on_wait: OnWait | None = None,
        cancel: Cancel | None = None,
        detect_deadlock: bool = False,
    ) -> Lease:
        """Wait for one of the locks and hold it.

        Args:
            timeout: Seconds to wait in all; None to wait for ever, 0 not to wait; by default as configured.
            reason: Why the lock is taken, kept with each lock's claim; see :meth:`lockkit.Lock.acquire`.
            on_wait: Called as that of :meth:`lockkit.Lock.acquire`, for each of the locks.
            cancel: Ends the wait from another thread; see :class:`lockkit.Cancel`.
            detect_deadlock: As for :meth:`lockkit.Lock.acquire`.

        Raises:
            AcquireTimeout: The time is up. Nothing is left in any queue, or the background removes it.
            DeadlockDetected: This thread or task would wait for itself at every one of the locks.
            AcquireError, BackendError, ConfigError: As :meth:`lockkit.Lock.acquire`, for the first failure.
        """
        wait = self._timeout if isinstance(timeout, Default) else checked_timeout(timeout)
        busy: list[Attempt] = []
        lease = self._take(wait, on_wait, busy, cancel, detect=detect_deadlock, reason=reason)
        if lease is not None:
            return lease
        raise self._refused(busy[0])

    def try_acquire(self, *, reason: str | None = None) -> Lease | None:
        """Hold the first of the locks that is free now; None only if each is definitely busy.

        Raises:
            CapacityMismatch, BackendError: As :meth:`acquire`. A failing store is never reported as busy.
        """
        return self._take(0.0, None, [], reason=reason)

    def _once(self) -> Lease:
        return self.acquire()

    def _take(
        self,
        wait: float | None,
        on_wait: OnWait | None,
        busy: list[Attempt],
        cancel: Cancel | None = None,
        *,
        detect: bool = False,
        reason: str | None = None,
    ) -> Lease | None:
        taking = Taking(
            self._opening, wait, self.name, self.locks, on_wait, cancel, detect=detect, reason=reason
        )
        steps, attempts = self._steps(taking, wait=wait != 0)
        lease = taking.run(steps, attempts, lambda got: got[0])
        # No call may come between: a signal must not strike where only this frame has the lease.
        if lease is not None:
            return lease
        busy.append(taking.busy)
        return None
