"""Locks taken together: all of several locks, or any one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

from lockkit.lib.caller import caller
from lockkit.lib.leaving import Held, Left
from lockkit.lib.loops import warn_of_loop
from lockkit.lib.takers import THREAD
from lockkit.protocol.attempt import Attempt
from lockkit.protocol.call import Call, OnWait
from lockkit.protocol.composing import PlaceLost, Steps, all_of
from lockkit.shared.composites import AnyAllOf, AnyAnyOf, AnyTaking
from lockkit.shared.options import DEFAULT, Default
from lockkit.sync.lease import Lease
from lockkit.sync.leases import Leases
from lockkit.sync.locks import Lock
from lockkit.sync.shortform import ShortForm
from lockkit.values.cancelling import Cancel

if TYPE_CHECKING:
    from lockkit.errors import AcquireTimeout
    from lockkit.shared.composites import Request
    from lockkit.shared.opening import Opening

__all__ = ["AllOf", "AnyOf", "Composite", "Taking"]

H = TypeVar("H", bound=Held)
S = TypeVar("S", bound=Left)


class Taking(AnyTaking):
    """One acquisition of several locks by a thread or task: what it is made with, and what it leaves.

    Args:
        opening: The client.
        call: What the acquire was called with.
        what: The locks, as a warning names them.
    """

    def __init__(self, opening: Opening, call: Call, what: str) -> None:
        wait = call.timeout
        deadline = opening.clock.now() + wait if wait else None
        driver = opening.here.driver
        if driver is None or not driver.origin.is_here():
            driver = opening.driver(wait)
        super().__init__(opening, driver, call, deadline, caller())
        if self.key is not THREAD.key and self.waits:
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
            got = driver.acquire_together(together, steps)
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


class Composite(ShortForm[S]):
    """A factory of leases on several locks, which are taken together."""

    def _taken(self, taking: Taking, wanted: Request | None) -> S | None:
        """Run an acquisition; None only on a definite "busy"."""
        raise NotImplementedError

    def _denied(self, taking: Taking, wanted: Request | None) -> AcquireTimeout:
        """The error of an acquire that does not wait, and found a lock busy."""
        raise NotImplementedError

    def _take(self, call: Call, wanted: Request | None = None) -> S | None:
        while True:
            taking = Taking(self._opening, call, self.name)
            try:
                got = self._taken(taking, wanted)
            except PlaceLost as lost:
                call = taking.again(lost)
                continue
            # No call may come between: a signal must not strike where only this frame has the leases.
            if got is not None or call.tries:
                return got
            raise self._denied(taking, wanted)


class AllOf(AnyAllOf[Leases, Lock], Composite[Leases]):
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
        leases = self._take(
            self._called(timeout, reason=reason, on_wait=on_wait, cancel=cancel, detect=detect_deadlock)
        )
        # No call may come between: a signal must not strike where only this frame has the lease.
        assert leases is not None
        return leases

    def try_acquire(self, *, reason: str | None = None) -> Leases | None:
        """Hold all locks if free now; None only if one is definitely busy, after giving back the others.

        Raises:
            CapacityMismatch, BackendError: As :meth:`acquire`. A failing store is never reported as busy.
        """
        return self._take(self._called(0.0, reason=reason, tries=True))

    def _taken(self, taking: Taking, _wanted: Request | None) -> Leases | None:
        levels: list[Lease] = []
        try:
            attempts: dict[Attempt, Lock] = {}
            for lock in self.locks:
                level = lock.level(taking.driver, taking.key, taking.taken_at, taking.call.timeout)
                if level is not None:
                    levels.append(level)
                else:
                    attempts[taking.attempt(lock, wait=taking.waits, one_of=len(self.locks))] = lock
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
        return None

    def _made(self, levels: list[Lease], got: list[Lease]) -> Leases:
        return Leases(self._ordered([*levels, *got]), self.look)


class AnyOf(AnyAnyOf[Lease, Lock], Composite[Lease]):
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
        lease = self._take(
            self._called(timeout, reason=reason, on_wait=on_wait, cancel=cancel, detect=detect_deadlock)
        )
        # No call may come between: a signal must not strike where only this frame has the lease.
        assert lease is not None
        return lease

    def try_acquire(self, *, reason: str | None = None) -> Lease | None:
        """Hold the first of the locks that is free now; None only if each is definitely busy.

        Raises:
            CapacityMismatch, BackendError: As :meth:`acquire`. A failing store is never reported as busy.
        """
        return self._take(self._called(0.0, reason=reason, tries=True))

    def _taken(self, taking: Taking, _wanted: Request | None) -> Lease | None:
        steps, attempts = self._steps(taking)
        return taking.run(steps, attempts, lambda got: got[0])
