"""Tell what happened: log lines at once, callbacks of loss, then plugins. Never on the caller's critical path.

Each plugin's ``lockkit_event`` and each ``lockkit_alert`` has a queue and a thread of its own. One that does not come
back keeps nothing from anybody else.
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
from lockkit.drivers.starting import join, start
from lockkit.events import Counters
from lockkit.facts import Alert, Event
from lockkit.plugins.calling import Implementation, call_each, hook_of
from lockkit.printable import printable

__all__ = ["DETAIL", "Dispatcher"]

_log = logging.getLogger("lockkit")
_QUEUE = 10_000
"""Events, and alerts, that may wait for a slow plugin; further ones are dropped and counted."""
DETAIL = logging.DEBUG
"""The level of what happens all the time: one look at it spares making the event."""
_LEVELS = {
    "acquired": DETAIL,
    "released": DETAIL,
    "queued": logging.DEBUG,
    "busy": logging.DEBUG,
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
    "resized": logging.WARNING,
    "collected": logging.WARNING,
    "lost": logging.ERROR,
    "emergency": logging.ERROR,
    "abandoned": logging.CRITICAL,
}
_ONLY_ALERTS = ("ownership_violation", "cleanup_overrun")
"""Alerts that no event of their own tells of, and so no log line."""
_MANY = 10
"""Lines about an outage within a second; more are counted, and told with the next. A loss is told each time."""
_OUTAGE = ("renewal_failed", "unanswered")
_LONGEST_SLEEP = 60.0
_LONG_WAIT = 1.0
"""Seconds of waiting from which a grant is worth an INFO line."""


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
        """Whether anybody would hear of such an event; spares building it on the hot path."""
        return self.listening or _log.isEnabledFor(_LEVELS[kind])

    def tell(self, what: Event | Alert) -> None:
        """Log it and pass it on. Never blocks, never raises."""
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
            dated = what._replace(at=self._clock.wall())
            for delivery in deliveries:
                delivery.put(dated)

    def _write(self, level: int, event: Event) -> None:
        """Log it, unless it is one of very many: a store that is away is so for thousands of holds, at every beat."""
        if event.kind in _OUTAGE:
            now = time.monotonic()
            since, count = self._failed
            if now - since > 1.0:
                if count > _MANY:
                    _log.log(level, "a store that does not answer: %d more lines like these", count - _MANY)
                since, count = now, 0
            self._failed = since, count + 1
            if count >= _MANY:
                return
        _log.log(level, "%s", printable(_sentence(event)), extra=_fields(event))

    def run(self, callback: Callable[[], None], name: str = "") -> None:
        """Run a user's callback of loss, apart from all plugins; what it raises is logged.

        Args:
            callback: Takes no arguments.
            name: The lock that was lost.
        """
        CALLBACKS.run(callback, f"on_lost of {name!r}", self)

    def look(self) -> bool:
        """Start what could not be started, and name what hangs; False if a thread is still refused."""
        started = CALLBACKS.look()
        for delivery in (*self._events, *self._alerts):
            started = delivery.look() and started
        return started

    def flush(self, timeout: float) -> None:
        """Wait until everything told so far has been delivered, at most ``timeout`` seconds."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if not CALLBACKS.pending(self) and not any(one.pending for one in (*self._events, *self._alerts)):
                return
            time.sleep(0.005)

    def close(self, timeout: float) -> None:
        """End the threads after what is queued; wait for them, at most ``timeout`` seconds in all."""
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

    @property
    def pending(self) -> bool:
        """Whether the hook has something queued or is being called; False if it hangs."""
        return not self._told and bool(self._queue or self._since)

    def put(self, what: Event | Alert) -> None:
        """Queue an event or alert for the hook; drop and count it if the hook hangs or is too slow."""
        self._name_hanging()
        if self._hanging.get(self._key) or len(self._queue) >= _QUEUE:
            self._counters.add("events_dropped" if isinstance(what, Event) else "alerts_dropped")
            return
        self._queue.append(what)
        self._start()
        self._bell.ring()

    def look(self) -> bool:
        """Start the thread if that failed before, and say so if the hook hangs; False if it fails still."""
        self._name_hanging()
        return not self._queue or self._start()

    def close(self) -> None:
        """End the thread after what is queued."""
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
                # If a signal handler cut this short there will be two threads, and the older one ends itself.
                self._owner = owner
        return True

    def _name_hanging(self) -> None:
        """Log a hook that has not come back for long. From then on it is not called until it comes back."""
        if not self._hangs():
            return
        with self._mutex:
            if not self._hangs():
                return
            self._told = True
            self._hanging[self._key] = self._hanging.get(self._key, 0) + 1
        self._counters.add("hooks_hanging")
        _log.error(
            "plugin %s: its %s has not come back for %.0f s; it is skipped in this process until it does",
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
            self._bell.ring()  # the ring that woke this thread was for the other one
        finally:
            if self._owner is me:
                self._owner = None

    def _deliver(self) -> None:
        self._since = time.monotonic()
        try:
            what = self._queue.popleft()
            call_each(self._hook, [self._implementation], {self._keyword: what})
        except IndexError:  # two threads, for a moment
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
        _log.warning(
            "plugin %s: its %s has come back; it is told of what happens again", self._plugin, self._hook
        )


def _sentence(event: Event) -> str:
    parts = [f"{event.kind.replace('_', ' ')}: {event.name!r}"]
    if event.claim_id:
        parts.append(f"claim {event.claim_id}")
    if event.fence is not None:
        parts.append(f"fence {event.fence}")
    if event.duration is not None:
        parts.append(f"after {event.duration:.3g} s")
    if event.reason:
        parts.append(f"({event.reason})")
    parts.extend(f"{key}={value}" for key, value in event.data.items() if value is not None)
    return " ".join(parts)


def _fields(what: Event | Alert) -> dict[str, object]:
    fence = what.fence if isinstance(what, Event) else None
    return {"lock": what.name, "claim_id": what.claim_id, "fence": fence, "kind": what.kind}
