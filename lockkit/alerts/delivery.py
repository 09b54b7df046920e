"""Deliveries: one thread for each channel, which hands what waits in its outbox to a sink.

:meth:`Delivery.put` writes the notification to the spool and returns. So it never waits for a service, and what it took survives the process.
A sink that hangs delays its own channel only.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path

from lockkit.alerts.notification import Notification, Severity, Sink
from lockkit.alerts.outbox import Batch, Counts, Outbox, Space
from lockkit.alerts.outcomes import Outcome, told
from lockkit.alerts.pacing import Limits
from lockkit.alerts.sharing import share
from lockkit.clock import SYSTEM, Clock, jitter
from lockkit.namedtuples import NamedTuple

__all__ = ["Delivery", "State", "attempt"]

_log = logging.getLogger("lockkit.alerts")
_ALL: tuple[Severity, ...] = ("P0", "P1", "P2")


class State(NamedTuple):
    """The state of a channel.

    Attributes:
        channel: The name.
        waiting: The notifications that wait.
        set_aside: The number of them that the service objected to, while others go on.
        failures: The failures since the last success.
        trying_for: Seconds since the attempt under way began; None if there is none.
        last_error: The reason of the last failure, without secrets; empty after a success that leaves nothing set aside.
        counts: What has been done.
    """

    channel: str
    waiting: int
    set_aside: int
    failures: int
    trying_for: float | None
    last_error: str
    counts: Counts


class Delivery:
    """The thread of a channel, and what it has to deliver. Thread-safe. Make it after a fork, not before.

    The sink may have two attributes: ``keeps_state``, true if the service keeps the state of each group, so that a later notification replaces an
    earlier one; and ``secrets``, texts that are hidden in errors.

    Args:
        name: The name of the channel.
        sink: Delivers a notification, or raises; see :class:`~lockkit.alerts.outcomes.NotDelivered`.
        folder: The folder of the spool, made for its owner alone; None to keep everything in memory.
        severities: The severities of the alerts that the channel is for.
        limits: How much the channel takes.
        space: How much may wait.
        clock: The clocks.
        chance: Returns a number from 0 up to 1, for the jitter.
    """

    def __init__(
        self,
        name: str,
        sink: Sink,
        folder: Path | None = None,
        *,
        severities: Collection[Severity] = _ALL,
        limits: Limits | None = None,
        space: Space | None = None,
        clock: Clock = SYSTEM,
        chance: Callable[[], float] = jitter,
    ) -> None:
        self.name = name
        self.severities = tuple(severities)
        self._sink = sink
        self._clock = clock
        self._changed = threading.Condition()
        self._closing = False
        self._began: float | None = None
        self._outbox = Outbox(
            name,
            folder,
            limits,
            space,
            keeps_state=getattr(sink, "keeps_state", False) is True,
            clock=clock,
            chance=chance,
        )
        self._thread = threading.Thread(target=self._run, name=f"lockkit-alerts-{name}", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"Delivery({self.name!r}, waiting={len(self._outbox)})"

    def put(self, notification: Notification) -> bool:
        """Take the channel's share of a notification, without waiting for the service.

        Returns True if that will be delivered, or is nothing. False if there is no room, or the delivery is closed; then it is
        counted as dropped.
        """
        with self._changed:
            part = share(notification, self._outbox.told, self.severities)
            if part is None:
                return True
            if self._closing:
                return False
            taken = self._outbox.add(part)
            self._changed.notify_all()
        return taken

    def state(self) -> State:
        """Return the state of the channel."""
        with self._changed:
            began = self._began
            trying = None if began is None else max(self._clock.now() - began, 0.0)
            box = self._outbox
            return State(self.name, len(box), box.set_aside, box.failures, trying, box.last_error, box.counts)

    def flush(self, within: float) -> bool:
        """Wait until nothing waits any more; False if that took longer than some seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not len(self._outbox), within)

    def close(self, within: float = 2.0) -> int:
        """Stop. An attempt under way may end within some seconds; no further one begins.

        Returns the number of notifications that wait in the spool for the next process.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(within)
        with self._changed:
            left = len(self._outbox)
            if not self._thread.is_alive():
                self._outbox.close()
            else:  # its result will not be recorded, so the notification is sent again
                _log.warning("channel %s has not answered for %.0f s, and is left", self.name, within)
        return left

    def _run(self) -> None:
        while (batch := self._wait()) is not None:
            error: BaseException | None = None
            try:
                self._sink(batch.notification)
            except BaseException as caught:
                error = caught
            with self._changed:
                self._began = None
                if self._closing and error is not None:
                    return
                self._outbox.settle(batch, error, tuple(getattr(self._sink, "secrets", ())))
                self._changed.notify_all()

    def _wait(self) -> Batch | None:
        """Wait for the next batch; None once the delivery is closed."""
        with self._changed:
            while not self._closing:
                todo = self._outbox.next()
                if isinstance(todo, Batch):
                    self._began = self._clock.now()
                    return todo
                self._changed.wait(todo.seconds)
        return None


def attempt(channel: str, sink: Sink, notification: Notification, within: float) -> Outcome:
    """Call a sink once, on a thread of its own. Returns after some seconds at the latest; nothing is tried again."""
    ended: list[BaseException | None] = []

    def call() -> None:
        try:
            sink(notification)
        except BaseException as error:
            ended.append(error)
        else:
            ended.append(None)

    thread = threading.Thread(target=call, name=f"lockkit-alerts-{channel}", daemon=True)
    began = time.monotonic()
    thread.start()
    thread.join(within)
    took = time.monotonic() - began
    if not ended:
        return Outcome(channel, delivered=False, error=f"no answer within {within:g} s", seconds=took)
    error = ended[0]
    secrets = tuple(getattr(sink, "secrets", ()))
    return Outcome(channel, error is None, "" if error is None else told(error, secrets), took)
