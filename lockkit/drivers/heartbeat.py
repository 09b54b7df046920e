"""The two threads of the heartbeat: one renews; one declares losses, on time even if a renewal hangs."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeVar

from lockkit.drivers.ticker import Ticker
from lockkit.lib.clock import Clock
from lockkit.protocol.beating import Beats
from lockkit.protocol.effects import Effect
from lockkit.protocol.running import to_its_end
from lockkit.store.spi import Backend

__all__ = ["Heartbeat"]

T = TypeVar("T")


class Heartbeat:
    """Runs :class:`~lockkit.protocol.beating.Beats` in two threads, which start with the first lock.

    Args:
        beats: The claims to keep alive.
        store: The store that renewals go to.
        perform: Performs all other effects.
        also: Called in the deadline thread after each turn with the current time; returns its next time.

    Attributes:
        beats: The claims to keep alive.
    """

    def __init__(
        self,
        beats: Beats,
        clock: Clock,
        store: Backend,
        perform: Callable[[Effect], object],
        also: Callable[[float], float],
    ) -> None:
        self.beats = beats
        self._clock = clock
        self._store = store
        self._perform = perform
        self._also = also
        self._beating = beats.to_beat = Ticker("lockkit-heartbeat", self._beat, clock)
        self._looking = beats.to_look = Ticker("lockkit-deadlines", self._look, clock)

    @property
    def running(self) -> bool:
        """Whether both threads run."""
        return self._beating.running and self._looking.running

    @property
    def empty(self) -> bool:
        """Whether there is no claim to keep alive."""
        return not self.beats.members

    def start(self) -> None:
        """Start both threads.

        Raises:
            RuntimeError: One of them cannot be started.
        """
        self._looking.start()
        self._beating.start()

    def lend(self, work: Callable[[], None]) -> bool:
        """Run some work on the deadline thread; False if that thread does not run."""
        return self._looking.lend(work)

    def look(self) -> None:
        """Look for collected leases and interrupted releases soon. Takes no lock: a finalizer may call it."""
        self._looking.nudge()

    def catch_up(self) -> None:
        """Do here what is due by now, and have both threads read the clock: for a test that moved it."""
        self._beat()
        self._look()
        self._beating.nudge()
        self._looking.nudge()

    def close(self) -> None:
        """Stop both threads, without waiting for them."""
        self._beating.close()
        self._looking.close()

    def join(self, timeout: float) -> None:
        """Wait for both threads to end, at most ``timeout`` seconds each."""
        self._beating.join(timeout)
        self._looking.join(timeout)

    def _beat(self) -> float:
        self._run(self.beats.beating())
        return self.beats.next()

    def _look(self) -> float:
        again = self._run(self.beats.looking())
        return min(again, self._also(self._clock.now()))

    def _run(self, turn: Generator[Effect, Any, T]) -> T:
        return to_its_end(turn, self._store, self._perform)
