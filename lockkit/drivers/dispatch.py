"""Deliver events and alerts: log records at once, on_lost callbacks and plugins on threads of their own, so that no caller waits.

Each plugin's ``lockkit_event`` and each ``lockkit_alert`` has a queue and a thread of its own. A hook that hangs delays no other.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import ClassVar

from lockkit.bell import Bell
from lockkit.clock import Clock
from lockkit.drivers.callbacks import CALLBACKS, HANGS
from lockkit.drivers.sentences import sentence
from lockkit.drivers.starting import join, start
from lockkit.events import Counters
from lockkit.facts import Alert, Event
from lockkit.plugins.calling import Implementation, call_each, hook_of
from lockkit.printable import printable

__all__ = ["DETAIL", "Dispatcher"]

_log = logging.getLogger("lockkit")
_QUEUE = 10_000
"""Events or alerts that one hook may have queued; further ones are dropped and counted."""
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
"""Log records about an outage in one second; further ones are only counted, and the next record gives their number. Losses are always logged."""
_OUTAGE = ("renewal_failed", "unanswered")
_LONGEST_SLEEP = 60.0
_LONG_WAIT = 1.0
"""Seconds of waiting from which a grant is logged at INFO."""


class Dispatcher:
    """Logs at once; hands events and alerts to plugins, and losses to callbacks, on daemon threads.

    Args:
        counters: Counts what is dropped and what hangs.
        events: The ``lockkit_event`` implementations.
        alerts: The ``lockkit_alert`` implementations.

    Attributes:
        listening: Whether any plugin hears of events or alerts.
    """

    def __init__(
        self,
        counters: Counters,
        clock: Clock,
        events: Sequence[Implementation] = (),
        alerts: Sequence[Implementation] = (),
    ) -> None:
        self._clock = clock
        self._events = [_Delivery("lockkit_event", "event", one, counters) for one in events]
        self._alerts = [_Delivery("lockkit_alert", "alert", one, counters) for one in alerts]
        self._failed = (0.0, 0)
        self.listening = bool(events or alerts)

    def wants(self, kind: str) -> bool:
        """Whether a plugin or the log would get an event of this kind, so that the hot path need not create others."""
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
        if deliveries:
            dated: Event | Alert
            if isinstance(what, Event):
                dated = what._replace(at=self._clock.wall(), boottime=self._clock.now())
            else:
                dated = what._replace(at=self._clock.wall())
            for delivery in deliveries:
                delivery.put(dated)

    def _write(self, level: int, event: Event) -> None:
        """Log an event, unless very many are alike: in an outage every heartbeat fails for thousands of holds."""
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
        """Start threads that could not be started before, and log hooks that hang; False if a thread still cannot be started."""
        started = CALLBACKS.look()
        for delivery in (*self._events, *self._alerts):
            started = delivery.look() and started
        return started

    def flush(self, timeout: float) -> None:
        """Wait until all events and alerts so far have been delivered, at most ``timeout`` seconds."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if not CALLBACKS.pending(self) and not any(one.pending for one in (*self._events, *self._alerts)):
                return
            time.sleep(0.005)

    def close(self, timeout: float) -> None:
        """Have the threads end after they have delivered their queues, and wait for them, at most ``timeout`` seconds in all."""
        end = time.monotonic() + timeout
        deliveries = (*self._events, *self._alerts)
        for delivery in deliveries:
            delivery.close()
        for delivery in deliveries:
            delivery.join(end - time.monotonic())


class _Delivery:
    """The queue of events or alerts for one hook of one plugin, and the thread that delivers them."""

    _hanging: ClassVar[dict[object, int]] = {}
    """How many calls of a hook hang in this process, whichever clients called it."""

    def __init__(self, hook: str, keyword: str, implementation: Implementation, counters: Counters) -> None:
        self._hook = hook
        self._keyword = keyword
        self._implementation = implementation
        self._plugin = implementation[0]
        self._key = hook_of(implementation)
        self._counters = counters
        self._queue: deque[Event | Alert] = deque()
        self._mutex = threading.RLock()
        self._bell = Bell()
        self._owner: object = None
        self._thread: threading.Thread | None = None
        self._since = 0.0
        self._told = False
        self._closed = False
        self._missed = 0

    @property
    def pending(self) -> bool:
        """Whether the hook has something queued or is being called; False if it hangs."""
        return not self._told and bool(self._queue or self._since)

    def put(self, what: Event | Alert) -> None:
        """Queue an event or alert for the hook; drop and count it if the hook hangs or is too slow."""
        self._name_hanging()
        if self._hanging.get(self._key) or len(self._queue) >= _QUEUE:
            self._counters.add("events_dropped" if isinstance(what, Event) else "alerts_dropped")
            self._missed += 1
            return
        if self._missed and isinstance(what, Event):
            # Two threads at once may tell of one gap twice. It is never left out.
            missed, self._missed = self._missed, 0
            self._queue.append(
                Event("missed", "", at=what.at, boottime=what.boottime, data={"count": missed})
            )
        self._queue.append(what)
        self._start()
        self._bell.ring()

    def look(self) -> bool:
        """Start the thread if that failed before, and log a hook that hangs; False if the thread still cannot be started."""
        self._name_hanging()
        return not self._queue or self._start()

    def close(self) -> None:
        """Have the thread end after it has delivered the queue."""
        self._closed = True
        self._bell.ring()

    def join(self, timeout: float) -> None:
        join(self._thread, timeout)

    def _start(self) -> bool:
        with self._mutex:
            if self._owner is None:
                owner = object()
                name = f"{self._hook.replace('_', '-')}-{self._plugin}"
                try:
                    start(lambda: self._run(owner), name)
                except RuntimeError:  # no more threads, for now or because the interpreter is shutting down
                    return False
                # If a signal handler interrupts this, two threads may be started; the older one then ends itself.
                self._owner = owner
        return True

    def _name_hanging(self) -> None:
        """Log a hook that has not returned for long. It is then not called again until it returns."""
        if not self._hangs():
            return
        with self._mutex:
            if not self._hangs():
                return
            self._told = True
            self._hanging[self._key] = self._hanging.get(self._key, 0) + 1
        self._counters.add("hooks_hanging")
        _log.error(
            "plugin %s: its %s has not returned for %.0f s; it is skipped in this process until it does",
            self._plugin,
            self._hook,
            HANGS,
        )

    def _hangs(self) -> bool:
        """Whether the hook hangs and has not been named for that yet."""
        since = self._since
        return since > 0.0 and not self._told and time.monotonic() - since > HANGS

    def _run(self, me: object) -> None:
        self._thread = threading.current_thread()
        try:
            while self._owner in (None, me):
                while self._queue:
                    self._deliver()
                if self._closed:
                    return
                self._bell.wait(_LONGEST_SLEEP)
            self._bell.ring()  # pass the wake-up on: it was meant for the newer thread
        finally:
            if self._owner is me:
                self._owner = None

    def _deliver(self) -> None:
        self._since = time.monotonic()
        try:
            what = self._queue.popleft()
            call_each(self._hook, [self._implementation], {self._keyword: what})
        except IndexError:  # there are two threads for a moment, and the other took it
            pass
        finally:
            self._came_back()

    def _came_back(self) -> None:
        with self._mutex:
            self._since = 0.0
            if not self._told:
                return
            self._told = False
            left = self._hanging.get(self._key, 1) - 1
            if left:
                self._hanging[self._key] = left
            else:
                self._hanging.pop(self._key, None)
        _log.warning("plugin %s: its %s has returned; it gets events again", self._plugin, self._hook)


def _fields(what: Event | Alert) -> dict[str, object]:
    fence = what.fence if isinstance(what, Event) else None
    return {"lock": what.name, "claim_id": what.claim_id, "fence": fence, "kind": what.kind}
