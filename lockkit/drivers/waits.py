"""How one acquisition waits: in the heartbeat, with a watch at the store, and for wakes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from lockkit.bell import Bell
from lockkit.clock import Clock
from lockkit.drivers.lifecycle import ending, listening, wait_no_longer_than_the_interpreter
from lockkit.drivers.ticker import no_thread
from lockkit.errors import AcquireCancelled
from lockkit.facts import Waiting
from lockkit.protocol.acquiring import Attempt
from lockkit.protocol.beating import Waiter
from lockkit.protocol.effects import WaitForWake
from lockkit.store.spi import Watch

if TYPE_CHECKING:
    from lockkit.drivers.threads import Driver

__all__ = ["OnWait", "Waits", "sleep_until"]

_log = logging.getLogger("lockkit")
_LONGEST_WAIT = 60.0
_LOOK = 0.5
"""Seconds between two checks for the end of the interpreter, if the end cannot wake the wait."""

OnWait: TypeAlias = Callable[[Waiting], None]
"""A function that is called in the waiting thread each time the store answers "queued"."""


class Waits:
    """The waits of one acquisition: its place in the heartbeat, its watch at the store, and the bell that wakes its thread."""

    _bell: Bell
    _waiter: Waiter | None = None
    _watch: Watch | None = None
    _blockers: tuple[str, ...] | None = None

    def __init__(self, driver: Driver, attempt: Attempt, on_wait: OnWait | None) -> None:
        self._driver = driver
        self._attempt = attempt
        self._on_wait = on_wait
        self._wait: Callable[[Bell, float], bool] = Bell.wait

    def wait(self, effect: WaitForWake) -> None:
        """Wait for a wake; the claim is renewed meanwhile."""
        driver = self._driver
        waiter = self._waiter
        if waiter is None or waiter.claim is not effect.claim:
            self._bell = Bell()
            waiter = self._waiter = driver.beats.waiter(effect.claim, self._bell.ring)
            self._blockers = None
        if effect.blockers != self._blockers:
            self._unwatch()
            self._listen(effect)
            self._blockers = effect.blockers
        if self._on_wait is not None:
            waited = driver.clock.now() - self._attempt.start
            self._on_wait(Waiting(effect.claim.terms.name, effect.position, effect.holder, waited))
        wait_no_longer_than_the_interpreter()
        while not self._cancelled():
            left = _LONGEST_WAIT if effect.until is None else effect.until - driver.clock.now()
            if left <= 0 or self._wait(self._bell, left if listening() else min(left, _LOOK)):
                break
        self._bell.rung()  # forget earlier rings, because the store is asked next anyway
        if why := self._cancelled():
            raise AcquireCancelled(why, name=effect.claim.terms.name)

    def pause(self, until: float) -> None:
        """Wait before the next request, after a failure."""
        sleep_until(self._driver.clock, until)
        if why := self._cancelled():
            raise AcquireCancelled(why)

    def _cancelled(self) -> str:
        """Why nobody may wait any longer; empty while waiting is allowed."""
        if self._driver.closed:
            return "the client was closed while waiting"
        return "the interpreter is ending, and waits for this thread" if ending() else ""

    def close(self) -> None:
        """Clean up after the wait: stop its watch, and take it out of the heartbeat."""
        if self._waiter is None:
            return
        self._unwatch()
        waiter = self._waiter
        if waiter is not None:
            self._driver.beats.forget(waiter)

    def _listen(self, effect: WaitForWake) -> None:
        """Have the store ring the bell, by a watch; a store that can do so delivers wakes in this thread."""
        backend = self._driver.backend
        asked = (effect.claim.terms.name, effect.blockers, self._bell.ring, effect.claim)
        listen = backend.extras.listen
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
            _log.warning("%s; the wait for %r polls instead", error, effect.claim.terms.name)

    def _unwatch(self) -> None:
        watch = self._watch
        if watch is not None:
            watch.close()
            self._watch = None


def sleep_until(clock: Clock, until: float) -> None:
    """Sleep until a time on the clock; an exception of a signal handler ends the sleep."""
    left = until - clock.now()
    if left > 0:
        time.sleep(min(left, _LONGEST_WAIT))
