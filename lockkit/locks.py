"""Locks: reusable factories of leases, and the function that builds them from options."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Never

from lockkit import durations
from lockkit.caller import Caller, caller
from lockkit.errors import ConfigError
from lockkit.facts import Kind
from lockkit.habits import Answering, unexpected
from lockkit.hold import Hold
from lockkit.lease import Lease
from lockkit.loops import warn_of_loop
from lockkit.names import check_token
from lockkit.options import DEFAULT, Default, Options, check, check_note, terms_of
from lockkit.protocol import denials
from lockkit.protocol.acquiring import Attempt
from lockkit.shortform import ShortForm
from lockkit.store.spi import Terms
from lockkit.takers import THREAD, asker

if TYPE_CHECKING:
    from lockkit.drivers.threads import Driver
    from lockkit.drivers.waits import OnWait
    from lockkit.opening import Opening

__all__ = ["Lock", "RWLock", "build", "checked_timeout"]


def build(
    opening: Opening,
    name: str,
    kind: Kind,
    weight: int,
    capacity: int,
    options: Options,
) -> Lock:
    """Make a lock, and check its name and options before any I/O.

    Raises:
        ConfigError: The name or an option is not allowed; the error says what is allowed.
        CapabilityError: The store does not support an option.
    """
    check(options, name, kind)
    timeout = options.get("timeout", opening.config.timeout)
    return Lock(
        opening,
        terms_of(opening.capabilities, opening.config, opening.owner, name, kind, weight, capacity, options),
        timeout=None if timeout is None else durations.seconds(timeout, what="timeout", zero=True),
        reentrant=bool(options.get("reentrant", False)),
        auto_renew=bool(options.get("auto_renew", True)),
        note=options.get("note"),
        on_lost=options.get("on_lost"),
    )


class Lock(ShortForm[Lease]):
    """A reusable, thread-safe factory of leases on one name, with one weight and capacity.

    ``with lock:`` is the short form; ``with lock.acquire() as lease:`` also gives you the lease. Each ``with`` statement, and each
    block that ``contextlib.ExitStack`` enters, releases the lease that it took, even if it ends in another thread or task. If you
    call ``__exit__`` yourself, call it in the thread or task that called ``__enter__``: elsewhere the call raises NotHeld, and the
    lease lasts until the first thread or task is over.

    Attributes:
        terms: The terms of the lock's claims, as the store gets them.
        tokens: A function that makes the token of a claim, called just before the claim is first sent; None for a random token. Set
            it if another process is to release the claim after this one died: the function can save the token first. An exception
            that the function raises ends the acquire.
    """

    def __init__(
        self,
        opening: Opening,
        terms: Terms,
        *,
        timeout: float | None = None,
        reentrant: bool = False,
        auto_renew: bool = True,
        note: Mapping[str, object] | None = None,
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(opening)
        self.terms = terms
        self._timeout = timeout
        self._reentrant = reentrant
        self._auto_renew = auto_renew
        self._note = note
        self._on_lost = on_lost
        self.tokens: Callable[[], str] | None = None

    @property
    def name(self) -> str:
        return self.terms.name

    def acquire(
        self,
        timeout: float | Default | None = DEFAULT,
        *,
        note: Mapping[str, object] | None = None,
        on_wait: OnWait | None = None,
        **others: Never,
    ) -> Lease:
        """Wait for the lock and hold it.

        Args:
            timeout: Seconds to wait in all; None to wait for ever, 0 not to wait; by default the timeout of the lock.
            note: A JSON object that ``inspect`` shows with the claim.
            on_wait: Called in this thread each time the store answers "queued".
            others: No other keyword is allowed. One that another library has is answered with what to write here.

        Raises:
            TypeError: There is another keyword.
            AcquireTimeout: The time is up. Nothing of the attempt is left in the store.
            DeadlockDetected: This thread or task holds the lock and would wait for itself, directly or behind another waiter that
                needs what it holds.
            CapacityMismatch: Others use the name with another capacity.
            AcquireCancelled: The client was closed meanwhile, or the interpreter is ending.
            BackendError: The store cannot be used, and the lock is not held.
            ConfigError: The URL does not fit the server or file that it points at.
        """
        if others:
            raise unexpected("Lock.acquire()", others)
        wait = self._timeout if isinstance(timeout, Default) else checked_timeout(timeout)
        busy: list[Attempt] = []
        lease = self._take(wait, note, on_wait, busy)
        # No call may come between: a signal must not strike where only this frame has the lease.
        if lease is not None:
            return lease
        raise denials.busy((self.name,), self.name, busy[0].holder, self._opening.clock.wall())

    def try_acquire(self, *, note: Mapping[str, object] | None = None) -> Lease | None:
        """Hold the lock if it is free now; None only on a definite "busy".

        Raises:
            CapacityMismatch, BackendError: As :meth:`acquire`. A failing store is never reported as busy.
        """
        return self._take(0.0, note, None, [])

    def _once(self) -> Lease:
        return self.acquire()

    def _take(
        self,
        wait: float | None,
        note: Mapping[str, object] | None,
        on_wait: OnWait | None,
        busy: list[Attempt],
    ) -> Lease | None:
        """Acquire; None only on a definite "busy". Then ``busy`` gets the attempt."""
        if note is not None:
            check_note(note)
        if on_wait is not None and not callable(on_wait):
            raise ConfigError(f"on_wait must be callable, not {on_wait!r}", name=self.name)
        opening = self._opening
        deadline = None if wait is None else opening.clock.now() + wait
        driver = opening.here.driver
        if driver is None or driver.pid != os.getpid():
            driver = opening.driver(wait)
        terms = self.terms
        if terms.owner.pid != driver.pid:  # made before a fork
            terms = self.terms = terms._replace(owner=opening.owner)
        if opening.here.warnings:
            opening.warn()
        key = asker()
        taken_at = caller()
        if key is not THREAD.key and wait != 0.0:
            warn_of_loop(terms.name, taken_at)
        own: Sequence[Hold] = driver.registry.holds.get(terms.name, ())
        if own:
            inner = self._reenter(driver, own, key, taken_at, wait) if self._reentrant else None
            if inner is not None:
                return inner
            own = [hold for hold in own if hold.key == key and hold.standing]
        attempt = Attempt(
            terms,
            deadline,
            wait != 0,
            note or self._note,
            self._auto_renew,
            driver.request_timeout,
            driver.pid,
            self._token if self.tokens is not None else None,
            own,
            "thread" if not own or isinstance(key(), threading.Thread) else "task",
        )
        try:
            hold = driver.acquire(attempt, on_wait)
            if hold is not None:
                lease = self.hand(driver, hold, key, taken_at)
                driver.under_way.pop(attempt, None)
                attempt.sent = False
                return lease
        except BaseException:
            attempt.over = True  # set first, without a call: if a signal interrupts the next step, the background removes the claim
            try:
                driver.take_back(attempt)
            finally:
                if attempt in driver.under_way:
                    opening.look()
            raise
        busy.append(attempt)
        return None

    def hand(self, driver: Driver, hold: Hold, key: weakref.ref[object], taken_at: Caller) -> Lease:
        """Make the lease of a hold that was just granted."""
        hold.key = key
        hold.reentrant = self._reentrant
        hold.where = self._opening.where
        hold.taken_at = taken_at
        lease = Lease(self._opening, driver, hold, taken_at)
        hold.handles = (
            weakref.ref(lease),
        )  # from here on garbage collection of the lease takes the claim back
        if self._on_lost is not None:
            lease.on_lost(self._on_lost)
        driver.registry.change(hold.claim.terms.name, new=hold)
        return lease

    # -- for locks that are taken together

    def belongs_to(self, opening: Opening) -> bool:
        """Whether this is a lock of that client."""
        return self._opening is opening

    @property
    def reentrant(self) -> bool:
        """Whether the thread or task that holds the lock may acquire it again."""
        return self._reentrant

    def attempt(
        self, driver: Driver, deadline: float | None, key: weakref.ref[object], *, wait: bool
    ) -> Attempt:
        """An attempt to acquire, for a thread or task, that has not begun."""
        if self.terms.owner.pid != driver.pid:  # made before a fork
            self.terms = self.terms._replace(owner=self._opening.owner)
        own = [hold for hold in driver.registry.holds.get(self.name, ()) if hold.key == key and hold.standing]
        return Attempt(
            self.terms,
            deadline,
            wait,
            self._note,
            self._auto_renew,
            driver.request_timeout,
            driver.pid,
            self._token if self.tokens is not None else None,
            own,
            "thread" if isinstance(key(), threading.Thread) else "task",
        )

    def level(
        self, driver: Driver, key: weakref.ref[object], taken_at: Caller, timeout: float | None
    ) -> Lease | None:
        """Add a level to a reentrant hold that the thread or task has; None if there is none."""
        own = driver.registry.holds.get(self.name, ()) if self._reentrant else ()
        return self._reenter(driver, own, key, taken_at, timeout) if own else None

    def _token(self) -> str:
        """The token that the function in :attr:`tokens` returns.

        Raises:
            ConfigError: The function did not return a token.
        """
        assert self.tokens is not None
        return check_token(self.tokens())

    def _reenter(
        self,
        driver: Driver,
        own: Sequence[Hold],
        key: weakref.ref[object],
        taken_at: Caller,
        timeout: float | None,
    ) -> Lease | None:
        """Add a level to a reentrant hold of this thread or task. The hold keeps its fence, and gets the longest ttl of all levels."""
        for hold in own:
            if not hold.reentrant or hold.key != key or hold.claim.terms.kind != self.terms.kind:
                continue
            if not hold.standing:
                continue
            lease = Lease(self._opening, driver, hold, taken_at)
            try:
                if hold.enter(lease):
                    if not lease.valid():
                        lease.release()
                        raise lease.invalid()
                    lease.lengthen(self.terms.ttl, timeout or None)
                    if self._on_lost is not None:
                        lease.on_lost(self._on_lost)
                    return lease
            except BaseException:
                # The caller never gets this level's lease. An assignment, because a signal could interrupt a call.
                lease.left = True
                raise
            lease.left = True
        return None

    def __repr__(self) -> str:
        terms = self.terms
        return f"<Lock {terms.name!r} {terms.kind} {terms.weight}/{terms.capacity} ttl {terms.ttl:g} s>"


class RWLock(Answering):
    """A reader/writer lock: any number of readers, or one writer. Claims are served in order of arrival, so none starves."""

    def __init__(self, reader: Lock, writer: Lock) -> None:
        self._reader = reader
        self._writer = writer

    def read(self) -> Lock:
        """The shared side."""
        return self._reader

    def write(self) -> Lock:
        """The exclusive side."""
        return self._writer


def checked_timeout(timeout: object) -> float | None:
    """The timeout of an acquire, in seconds.

    Raises:
        ConfigError: The timeout is neither None nor a number of seconds.
    """
    if isinstance(timeout, bool):
        raise ConfigError(
            f"timeout must be a number of seconds or None, not {timeout}",
            hint="acquire(timeout=0) does not wait, and try_acquire() returns None if the lock is busy",
        )
    return None if timeout is None else durations.seconds(timeout, what="timeout", zero=True)
