"""How an acquisition waits for one lock: in the heartbeat, with a watch at the store, and for wakes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from lockkit.drivers.lifecycle import ending, listening, wait_no_longer_than_the_interpreter
from lockkit.drivers.ticker import no_thread
from lockkit.errors import AcquireCancelled
from lockkit.facts import Waiting
from lockkit.lib.bell import Bell
from lockkit.lib.clock import Clock
from lockkit.protocol.attempt import Attempt
from lockkit.protocol.beating import Waiter
from lockkit.protocol.call import OnWait
from lockkit.protocol.effects import WaitForWake
from lockkit.store.log import Log
from lockkit.store.spi import Watch
from lockkit.values.cancelling import Cancel

if TYPE_CHECKING:
    from lockkit.drivers.threads import Driver

__all__ = ["LONGEST_WAIT", "LOOK", "ThreadWaits", "Waits", "cancelled", "polls", "sleep_until"]

_log = Log("lockkit")
LONGEST_WAIT = 60.0
"""Seconds after which a wait reads the clock again."""
LOOK = 0.5
"""Seconds between two checks for the end of the interpreter, if the end cannot wake the wait."""


class Waits:
    """One attempt's waits: its place in the heartbeat, and its watch. Drivers add how to wait for a wake.

    Args:
        attempt: The attempt that waits.
        tell: Called for each report of its place, if that is not the function that the acquire was given.
    """

    __slots__ = ("_attempt", "_blockers", "_driver", "_tell", "_waiter", "_watch")

    def __init__(self, driver: Driver, attempt: Attempt, tell: OnWait | None = None) -> None:
        self._driver = driver
        self._attempt = attempt
        self._tell = attempt.call.on_wait if tell is None else tell
        self._waiter: Waiter | None = None
        self._watch: Watch | None = None
        self._blockers: tuple[str, ...] | None = None

    @property
    def standing(self) -> bool:
        """Whether the claim is queued, renewed and watched."""
        return self._blockers is not None

    def prepare(self, effect: WaitForWake) -> None:
        """Have the claim renewed, and have wakes arrive."""
        waiter = self._waiter
        if waiter is None or waiter.claim is not effect.claim:
            self._waiter = self._driver.beats.waiter(effect.claim, self._new_bell())
            self._blockers = None
        if effect.blockers != self._blockers:
            self._unwatch()
            self._listen(effect)
            self._blockers = effect.blockers
        if self._tell is not None:
            waited = self._driver.clock.now() - self._attempt.start
            self._tell(Waiting(effect.claim.terms.name, effect.position, effect.holder, waited))

    def ask_again(self) -> None:
        """Wake the wait, so that it asks the store again. Any thread may call this."""
        waiter = self._waiter
        if waiter is not None:
            waiter.wake()

    def _new_bell(self) -> Callable[[], None]:
        """A function that wakes the wait for a claim, from any thread."""
        raise NotImplementedError

    def _left(self, until: float | None) -> float:
        """Seconds to wait at most before the clock is read again."""
        return LONGEST_WAIT if until is None else min(until - self._driver.clock.now(), LONGEST_WAIT)

    def _go_on(self, name: str | None = None) -> None:
        """Check that the wait may continue.

        Raises:
            AcquireCancelled: The wait was cancelled.
        """
        if why := cancelled(self._driver, self._attempt.call.cancel):
            raise AcquireCancelled(why, name=name)

    def close(self) -> None:
        """Clean up after the wait: stop its watch, and take it out of the heartbeat."""
        waiter = self._waiter
        if waiter is None:
            return
        self._unwatch()
        self._driver.beats.forget(waiter)
        self._waiter = None  # its bell refers to this

    def _listen(self, effect: WaitForWake) -> None:
        """Have the store wake the wait, by a watch."""
        raise NotImplementedError

    def _unwatch(self) -> None:
        watch = self._watch
        if watch is not None:
            watch.close()
            self._watch = None


class ThreadWaits(Waits):
    """The waits of a thread, which a bell wakes.

    Args:
        attempt, tell: As for :class:`Waits`.
        ring: Called for each wake, if another bell wakes the thread.
    """

    __slots__ = ("_attached", "_bell", "_pausing", "_ring", "_wait")

    def __init__(
        self,
        driver: Driver,
        attempt: Attempt,
        ring: Callable[[], None] | None = None,
        tell: OnWait | None = None,
    ) -> None:
        super().__init__(driver, attempt, tell)
        self._bell = Bell()
        self._pausing = Bell()
        self._ring = ring
        self._wait: Callable[[Bell, float], bool] = Bell.wait
        cancel = attempt.call.cancel if ring is None else None
        self._attached = 0 if cancel is None else cancel.attach(self._cut_short)

    def wait(self, effect: WaitForWake) -> None:
        """Wait for a wake; the claim is renewed meanwhile."""
        self.prepare(effect)
        wait_no_longer_than_the_interpreter()
        while not cancelled(self._driver, self._attempt.call.cancel):
            left = self._left(effect.until)
            if left <= 0 or self._wait(self._bell, left if listening() else min(left, LOOK)):
                break
        self._bell.rung()  # forget earlier rings, because the store is asked next anyway
        self._go_on(effect.claim.terms.name)

    def pause(self, until: float) -> None:
        """Wait before the next request, after a failure."""
        cancel = self._attempt.call.cancel
        if cancel is None:
            sleep_until(self._driver.clock, until)
        elif not cancel.cancelled():
            self._pausing.wait(until - self._driver.clock.now())
        self._go_on(self._attempt.terms.name)

    def close(self) -> None:
        """Clean up after the wait, and forget the switch that could have cancelled it."""
        cancel = self._attempt.call.cancel
        if cancel is not None:
            cancel.detach(self._attached)
        super().close()

    def _cut_short(self) -> None:
        """Wake the thread, whatever it waits for. May be called from anywhere."""
        self._pausing.ring()
        self._bell.ring()

    def _new_bell(self) -> Callable[[], None]:
        self._bell = Bell()
        return self._ring or self._bell.ring

    def _listen(self, effect: WaitForWake) -> None:
        """Have the store ring the bell, by a watch; a store that can do so delivers wakes in this thread."""
        backend = self._driver.backend
        ring = self._ring or self._bell.ring
        asked = (effect.claim.terms.name, effect.blockers, ring, effect.claim)
        listen = backend.extras.listen if self._ring is None else None
        self._wait = Bell.wait
        try:
            if listen is None:
                self._watch = backend.watch(*asked)
            else:
                watch = self._watch = listen(*asked)
                self._wait = watch.wait
        except RuntimeError as error:
            if not no_thread(error):
                raise
            polls(effect, error)


def cancelled(driver: Driver, cancel: Cancel | None = None) -> str:
    """Why nobody, or nobody with this switch, may wait any longer; empty while waiting is allowed."""
    if cancel is not None and cancel.cancelled():
        return "the wait was cancelled"
    if driver.closed:
        return "the client was closed while waiting"
    return "the interpreter is ending, and waits for this thread" if ending() else ""


def polls(effect: WaitForWake, error: BaseException) -> None:
    """Log that a wait has no watch, and that it asks from time to time instead."""
    _log.warning("%s; the wait for %r polls instead", error, effect.claim.terms.name)


def sleep_until(clock: Clock, until: float) -> None:
    """Sleep until a time on the clock; an exception of a signal handler ends the sleep."""
    left = until - clock.now()
    if left > 0:
        time.sleep(min(left, LONGEST_WAIT))
