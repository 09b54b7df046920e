"""Deliveries: one thread for each channel, which hands its outbox to a sink.

:meth:`Delivery.put` writes the notification to the spool and returns: it never waits for a service, and the
notification survives the process. A sink that hangs delays its own channel only. Each attempt has its own
thread, which is given up after some time: most client libraries limit only the wait for the next byte.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path

from lockkit.alerts.notification import Notification, Severity, Sink, keyed
from lockkit.alerts.outbox import Batch, Counts, Outbox, Space
from lockkit.alerts.outcomes import NotDelivered, Outcome, told
from lockkit.alerts.pacing import Limits
from lockkit.alerts.sharing import share
from lockkit.errors import LockkitError
from lockkit.lib.clock import SYSTEM, Clock, jitter
from lockkit.lib.namedtuples import NamedTuple

__all__ = ["Delivery", "State", "attempt"]

_log = logging.getLogger("lockkit.alerts")
_ALL: tuple[Severity, ...] = ("P0", "P1", "P2")
_LONGEST = 60.0
_MOST_BEHIND = 4
"""The most attempts of a channel that were given up and have not ended; beyond, none is started."""


class State(NamedTuple):
    """The state of a channel.

    Attributes:
        channel: The name.
        waiting: The notifications that wait.
        set_aside: The number of them that the service objected to, while others are sent.
        failures: The failures since the last success.
        last_error: The last failure's reason, without secrets; empty after a success with none set aside.
        counts: The deliveries so far.
    """

    channel: str
    waiting: int
    set_aside: int
    failures: int
    last_error: str
    counts: Counts


class Delivery:
    """The thread of a channel, and what it has to deliver. Thread-safe. Create it after a fork, not before.

    The sink may have two attributes: ``keeps_state``, true if the service keeps the state of each group, so
    that a later notification replaces an earlier one; and ``secrets``, texts that are hidden in errors.

    Args:
        name: The name of the channel.
        sink: Delivers a notification, or raises; see :class:`~lockkit.alerts.outcomes.NotDelivered`.
        folder: The folder of the spool, made for its owner alone; None to keep everything in memory.
        severities: The severities of the alerts that the channel is for.
        limits: How much the channel takes.
        space: How much may wait.
        longest: Seconds after which an attempt is given up and repeated; the service may have taken it.
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
        longest: float = _LONGEST,
        clock: Clock = SYSTEM,
        chance: Callable[[], float] = jitter,
    ) -> None:
        self.name = name
        self.severities = tuple(severities)
        self._sink = sink
        self._longest = longest
        self._behind: list[threading.Thread] = []
        self._changed = threading.Condition()
        self._closing = False
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

        Returns True if that will be delivered, or is empty; False if there is no room, or the delivery is
        closed: then it is counted as dropped.
        """
        with self._changed:
            part = share(keyed(notification), self._outbox.told, self.severities)
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
            box = self._outbox
            return State(self.name, len(box), box.set_aside, box.failures, box.last_error, box.counts)

    def flush(self, within: float) -> bool:
        """Wait until nothing waits any more; False if that took longer than some seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not len(self._outbox), within)

    def close(self, within: float = 2.0) -> int:
        """Stop; an attempt under way has ``within`` seconds. Returns the number of those in the spool."""
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
            error = self._error_of(batch.notification)
            with self._changed:
                if self._closing and error is not None:
                    return
                self._outbox.settle(batch, error, tuple(getattr(self._sink, "secrets", ())))
                self._changed.notify_all()

    def _error_of(self, notification: Notification) -> BaseException | None:
        """The error of one attempt; None if the service took the notification."""
        self._behind = [one for one in self._behind if one.is_alive()]
        if len(self._behind) >= _MOST_BEHIND:
            return NotDelivered(f"{len(self._behind)} earlier attempts have not ended")
        try:
            thread, error = _called(self.name, self._sink, notification, self._longest)
        except RuntimeError as caught:  # no more threads
            return NotDelivered(str(caught))
        if thread.is_alive():
            self._behind.append(thread)
        return error

    def _wait(self) -> Batch | None:
        """Wait for the next batch; None once the delivery is closed."""
        with self._changed:
            while not self._closing:
                todo = self._outbox.next()
                if isinstance(todo, Batch):
                    return todo
                self._changed.wait(todo.seconds)
        return None


def attempt(channel: str, sink: Sink, notification: Notification, within: float) -> Outcome:
    """Call a sink once, on a thread of its own, for at most ``within`` seconds. Nothing is retried."""
    began = time.monotonic()
    _, error = _called(channel, sink, notification, within)
    took = time.monotonic() - began
    if error is None:
        return Outcome(channel, delivered=True, seconds=took)
    # Only now, because a sink reads its secrets when it is called.
    secrets = tuple(getattr(sink, "secrets", ()))
    return Outcome(channel, delivered=False, error=told(error, secrets), seconds=took)


def _called(
    channel: str, sink: Sink, notification: Notification, within: float
) -> tuple[threading.Thread, BaseException | None]:
    """Call a sink. Returns its thread and its error: None if it succeeded, _NoAnswer if it runs too long."""
    ended: list[BaseException | None] = []

    def call() -> None:
        try:
            sink(notification)
        except BaseException as error:
            ended.append(error)
        else:
            ended.append(None)

    thread = threading.Thread(target=call, name=f"lockkit-alerts-{channel}", daemon=True)
    thread.start()
    thread.join(within)
    return thread, ended[0] if ended else _NoAnswer(f"no answer within {within:g} s")


class _NoAnswer(LockkitError):
    """The service may have taken the notification, or not."""
