"""Deliver events and alerts without delaying the caller: log at once, call on_lost and plugins on threads.

Each ``lockkit_event`` and ``lockkit_alert`` hook has a queue and a thread. A hook that hangs delays no other.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from lockkit.drivers.callbacks import CALLBACKS
from lockkit.drivers.delivery import Delivery
from lockkit.drivers.sentences import sentence
from lockkit.facts import Alert, Event
from lockkit.lib.clock import Clock
from lockkit.lib.printable import printable
from lockkit.plugins.calling import Implementation
from lockkit.store import log
from lockkit.store.log import Log
from lockkit.values.events import Counters

__all__ = ["DETAIL", "Dispatcher"]

_log = Log("lockkit")
DETAIL = logging.DEBUG
"""The log level of frequent events. If it is off, and no plugin listens, the event is not even created."""
_LEVELS = {
    "acquired": DETAIL,
    "released": DETAIL,
    "queued": logging.DEBUG,
    "busy": logging.DEBUG,
    "cancelled": logging.DEBUG,
    "failed": logging.DEBUG,
    "absent": logging.DEBUG,
    "removed": logging.DEBUG,
    "cleanup": logging.DEBUG,
    "requeued": logging.INFO,
    "skipped": logging.INFO,
    "timeout": logging.INFO,
    "still_waiting": logging.WARNING,
    "unanswered": logging.WARNING,
    "renewal_failed": logging.WARNING,
    "max_hold": logging.WARNING,
    "evicted": logging.WARNING,
    "release_requested": logging.WARNING,
    "resized": logging.WARNING,
    "recovered": logging.WARNING,
    "overdue": logging.WARNING,
    "survivors": logging.WARNING,
    "guard_opened": logging.DEBUG,
    "guard_written": logging.DEBUG,
    "guard_refused": logging.WARNING,
    "gpu_cleared": logging.WARNING,
    "gpu_faulty": logging.ERROR,
    "gpu_idle": logging.WARNING,
    "gpu_overused": logging.WARNING,
    "dropped": logging.WARNING,
    "collected": logging.ERROR,
    "lost": logging.ERROR,
    "emergency": logging.ERROR,
    "abandoned": logging.CRITICAL,
    "missed": logging.DEBUG,
    "closed": logging.DEBUG,
}
_ONLY_ALERTS = (
    "ownership_violation",
    "cleanup_overrun",
    "recovery_limited",
    "gpu_dirty",
    "gpu_quarantined",
    "gpu_not_quarantined",
)
"""Alerts that no event accompanies, so that they are logged themselves."""
_MANY = 10
"""The most records about an outage in one second; the next one counts the rest. Losses are always logged."""
_OUTAGE = ("renewal_failed", "unanswered")
_LONG_WAIT = 1.0
"""Seconds of waiting from which a grant is logged at INFO."""


class Dispatcher:
    """Logs at once; hands events and alerts to plugins, and losses to callbacks, on daemon threads.

    Args:
        counters: Counts what is dropped and what hangs.
        events: The ``lockkit_event`` implementations.
        alerts: The ``lockkit_alert`` implementations.
        named: The names of a few locks, and one more ``lockkit_event`` implementation, which sees only these.

    Attributes:
        listening: Whether any plugin gets all events or alerts.
        names: The names of ``named``.
    """

    def __init__(
        self,
        counters: Counters,
        clock: Clock,
        events: Sequence[Implementation] = (),
        alerts: Sequence[Implementation] = (),
        named: tuple[frozenset[str], Implementation] | None = None,
    ) -> None:
        self._clock = clock
        self._events = [Delivery("lockkit_event", "event", one, counters) for one in events]
        self._alerts = [Delivery("lockkit_alert", "alert", one, counters) for one in alerts]
        self.names: frozenset[str] = named[0] if named else frozenset()
        self._named = [Delivery("lockkit_event", "event", named[1], counters)] if named else []
        self._all = (*self._events, *self._alerts, *self._named)
        self._failed = (0.0, 0)
        self.listening = bool(events or alerts)

    def wants(self, kind: str) -> bool:
        """Whether a plugin or the log would get an event of this kind; the hot path creates no other."""
        return self.listening or _log.isEnabledFor(_LEVELS[kind])

    def tell(self, what: Event | Alert) -> None:
        """Log an event or alert, and queue it for the plugins. Never blocks, never raises."""
        if isinstance(what, Event):
            level = _LEVELS[what.kind]
            if what.kind == "acquired" and (what.duration or 0.0) > _LONG_WAIT:
                level = logging.INFO
            if _log.isEnabledFor(level):
                self._write(level, what)
        elif what.kind in _ONLY_ALERTS:
            _log.error("%s", printable(what.message), extra=_fields(what))
        deliveries = self._events if isinstance(what, Event) else self._alerts
        if what.name in self.names and isinstance(what, Event):
            deliveries = [*deliveries, *self._named]
        if deliveries:
            dated: Event | Alert
            if isinstance(what, Event):
                dated = what._replace(at=self._clock.wall(), boottime=self._clock.now())
            else:
                dated = what._replace(at=self._clock.wall())
            for delivery in deliveries:
                delivery.put(dated)

    def _write(self, level: int, event: Event) -> None:
        """Log an event, unless many are alike: in an outage each heartbeat fails for thousands of holds."""
        if event.kind in _OUTAGE:
            now = time.monotonic()
            since, count = self._failed
            if now - since > 1.0:
                if count > _MANY:
                    _log.log(
                        level,
                        "the store does not answer: %d more messages like these were left out",
                        count - _MANY,
                    )
                since, count = now, 0
            self._failed = since, count + 1
            if count >= _MANY:
                return
        _log.log(level, "%s", printable(sentence(event)), extra=_fields(event))

    def run(self, callback: Callable[[], None], name: str = "") -> None:
        """Run an on_lost callback, apart from all plugins; an exception of the callback is logged.

        Args:
            callback: Takes no arguments.
            name: The lock that was lost.
        """
        CALLBACKS.run(callback, f"on_lost of {name!r}", self)

    def look(self) -> bool:
        """Start threads that failed to start, and log hanging hooks; False if a thread still fails."""
        started = CALLBACKS.look()
        for delivery in self._all:
            started = delivery.look() and started
        return started

    def flush(self, timeout: float) -> None:
        """Wait until all events and alerts so far have been delivered, at most ``timeout`` seconds."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if not (CALLBACKS.pending(self) or any(one.pending for one in self._all) or log.pending()):
                return
            time.sleep(0.005)

    def close(self, timeout: float) -> None:
        """Have the threads deliver their queues and end; wait at most ``timeout`` seconds in all.

        A slow hook gets the rest while the process lives; a hanging hook's rest is dropped and counted.
        """
        end = time.monotonic() + timeout
        deliveries = self._all
        for delivery in deliveries:
            delivery.close()
        for delivery in deliveries:
            delivery.join(end - time.monotonic())
            delivery.leave()

    def end(self, timeout: float) -> None:
        """Deliver for at most ``timeout`` seconds, then drop and count the rest: the process ends."""
        self.flush(timeout)
        for delivery in self._all:
            delivery.drop_rest()


def _fields(what: Event | Alert) -> dict[str, object]:
    fence = what.fence if isinstance(what, Event) else None
    return {"lock": what.name, "claim_id": what.claim_id, "fence": fence, "kind": what.kind}
