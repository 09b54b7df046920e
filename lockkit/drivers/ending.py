"""The end of an engine: its client is closed or collected, or the process ends."""

from __future__ import annotations

import _thread
import logging
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from lockkit.drivers.closing import Closing
from lockkit.drivers.errand import Errand
from lockkit.drivers.lifecycle import over
from lockkit.facts import Reason
from lockkit.store.log import Log

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lockkit.drivers.threads import Driver
    from lockkit.protocol.hold import Hold
    from lockkit.store.spi import Claim

__all__ = ["Ending"]

_log = Log("lockkit")
_JOIN = 0.15
_CLOSE_BUDGET = 1.9
"""Seconds that releasing everything may take in all, beyond the cleanup hooks, when a client closes."""


class Ending:
    """The end of one engine: it closes once, and lets go of its store once, however often this is requested.

    Args:
        driver: The engine.

    Attributes:
        origin: The process of the engine.
        kept: The holds of daemon threads that run on while the process ends: renewed, and not released.
        gone: Whether the close or the end of the process has started, so that a finalizer need not start it.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.origin = driver.origin
        self._mutex = threading.RLock()
        self._closing: Errand | None = None
        self._leaving: Errand | None = None
        self._dropped = False
        self.kept: list[Hold] = []
        self.gone = False

    def close(self, reason: Reason) -> None:
        """Release holds, take back waits, try the orphans once, in a bounded time; then stop renewing.

        Any thread may call this again, also after a signal handler's exception: the close continues.
        """
        self._errand(reason, _CLOSE_BUDGET).wait()

    def begin_close(self, reason: Reason, budget: float) -> None:
        """Begin :meth:`close` in the background, because the process ends."""
        self.gone = True
        self._errand(reason, budget, ends=True).begin()

    def _errand(self, reason: Reason, budget: float, *, ends: bool = False) -> Errand:
        with self._mutex:
            errand = self._to_close(reason, budget, ends=ends)
            beats = self._driver.beats
            # No signal is let through here.
            self._closing, beats.closing = self._closing or errand, True
            return self._closing

    def _to_close(self, reason: Reason, budget: float, *, ends: bool = False) -> Errand:
        driver = self._driver
        return Errand("lockkit-close", Closing(driver, reason, budget, ends=ends).run, driver.heartbeat.lend)

    def await_close(self, longest: float) -> None:
        """Wait for the close, ``longest`` seconds beyond cleanup hooks; then log which claims are left."""
        driver, began = self._driver, time.monotonic()
        if self._closing is not None:
            self._closing.wait(longest, lambda: driver.releases.cleaning.moving)
        driver.dispatcher.end(max(0.0, began + longest - time.monotonic()))
        kept = [hold.claim for hold in self.kept if hold.standing]
        if kept:
            _log.log(
                logging.DEBUG if driver.backend.capabilities.process_bound else logging.WARNING,
                "a daemon thread works under %s while the process ends, so it is held to the end of "
                "the process, and lapses by %s at the latest; to free it at once, have the thread end "
                "before, and join it",
                *self._names_and_end(kept),
            )
        left = [
            *driver.orphans.left(),
            *(hold.claim for hold in driver.beats.holds() if hold not in self.kept),
        ]
        if left:
            _log.error(
                "the process ends with claims that the store did not confirm to be removed (%d: %s); they "
                "lapse by %s",
                len(left),
                *self._names_and_end(left),
            )

    def _names_and_end(self, claims: Sequence[Claim]) -> tuple[str, str]:
        """Some names of claims, and when the last of them lapses if nobody renews them."""
        names = sorted({repr(claim.terms.name) for claim in claims})
        longest = max(claim.terms.ttl + claim.terms.lock_delay for claim in claims)
        end = datetime.fromtimestamp(self._driver.clock.wall() + longest, UTC).isoformat(timespec="seconds")
        return ", ".join([*names[:5], *(["..."] if len(names) > 5 else [])]), end

    def leave(self, reason: Reason) -> Errand:
        """Close, and let go of the store once nothing is left to remove: for a process that lives on.

        A signal handler's exception comes before anything is done or after all is decided. Then the
        background starts the close, within a ttl, or when the client is collected. May be called again, from
        any thread.

        Returns:
            The work, to be waited for or started.
        """
        with self._mutex:
            closing = self._to_close(reason, _CLOSE_BUDGET)
            leaving = Errand("lockkit-close", self._leave, self._driver.heartbeat.lend)
            beats = self._driver.beats
            # No signal is let through between these, and a handler before them may have closed it.
            self._closing, self._leaving, beats.closing = (
                self._closing or closing,
                self._leaving or leaving,
                True,
            )
            return self._leaving

    def _leave(self) -> None:
        self.gone = True
        assert self._closing is not None
        self._closing.do()
        self._retire()

    def _retire(self) -> None:
        driver = self._driver
        over(self)
        driver.end_choices()
        try:
            driver.orphans.retire(driver.backend.close)
        finally:
            driver.heartbeat.join(_JOIN)
            if not len(driver.orphans):
                driver.orphans.join(_JOIN)
            driver.dispatcher.close(_JOIN)

    def drop(self) -> None:
        """End by itself once nothing is held, or at once if it is closed: its client was collected.

        Takes no lock, so a finalizer may call it.
        """
        self._dropped = True
        driver = self._driver
        if driver.heartbeat.running and not driver.closed:
            driver.heartbeat.look()
            return
        try:  # not by the deadline thread: if it is closed, that one may end without another look
            _thread.start_new_thread(lambda: self.leave("exit").begin(), ())
        except RuntimeError:  # no thread to be had: that one then, or its descriptors go with the process
            driver.heartbeat.look()

    def look(self) -> None:
        """In the deadline thread: start an end that is due, or whose start a signal prevented."""
        if self._dropped and (self._driver.closed or self._driver.heartbeat.empty):
            self.leave("exit").begin()
        elif self._leaving is not None:  # perhaps a signal prevented the start
            self._leaving.begin()

    def wake_all(self) -> None:
        """Have the threads that wait look whether they still may; their claims land on the orphan list."""
        for waiter in self._driver.beats.waiting():
            waiter.wake()
        for waits in list(self._driver.under_way.values()):
            if waits is not None:
                waits.ask_again()
