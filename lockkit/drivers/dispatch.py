"""Tell what happened: log lines, then plugins on a thread of their own. Never on the caller's critical path."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from lockkit.bell import Bell
from lockkit.clock import Clock
from lockkit.events import Counters
from lockkit.facts import Alert, Event

__all__ = ["Dispatcher"]

_log = logging.getLogger("lockkit")
_QUEUE = 10_000
"""Events that may wait for slow plugins; what comes on top is dropped and counted."""
_LEVELS = {
    "acquired": logging.DEBUG,
    "released": logging.DEBUG,
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
    """Logs at once; hands events and alerts to plugins, and runs callbacks, in order on one daemon thread.

    Args:
        counters: Counts what is dropped.
        deliver: Called on the thread with each event or alert; None if no plugin listens.
    """

    def __init__(
        self, counters: Counters, clock: Clock, deliver: Callable[[Event | Alert], None] | None
    ) -> None:
        self._counters = counters
        self._clock = clock
        self._deliver = deliver
        self._queue: deque[Event | Alert | Callable[[], None]] = deque()
        self._mutex = threading.RLock()
        self._bell = Bell()
        self._thread: threading.Thread | None = None
        self._busy = False
        self._closed = False
        self._failed = (0.0, 0)
        self.listening = deliver is not None

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
            _log.error("%s", what.message, extra=_fields(what))
        if self._deliver is not None:
            self._put(what._replace(at=self._clock.wall()))

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
        _log.log(level, "%s", _sentence(event), extra=_fields(event))

    def run(self, callback: Callable[[], None]) -> None:
        """Run a user's callback on the thread; what it raises is logged."""
        self._put(callback)

    def flush(self, timeout: float) -> None:
        """Wait until everything told so far has been delivered, at most ``timeout`` seconds."""
        end = time.monotonic() + timeout
        while (self._queue or self._busy) and time.monotonic() < end:
            time.sleep(0.005)

    def close(self, timeout: float) -> None:
        """End the thread after what is queued."""
        self._closed = True
        self._bell.ring()
        thread = self._thread
        if thread is not None and thread.is_alive() and thread is not threading.current_thread():
            thread.join(timeout)

    def _put(self, what: Event | Alert | Callable[[], None]) -> None:
        if len(self._queue) >= _QUEUE and isinstance(what, Event):
            self._counters.add("events_dropped")
            return
        self._queue.append(what)
        with self._mutex:
            if self._thread is None or not self._thread.is_alive():
                try:
                    self._thread = threading.Thread(target=self._run, name="lockkit-events", daemon=True)
                    self._thread.start()
                except RuntimeError:  # the interpreter is shutting down
                    return
        self._bell.ring()

    def _run(self) -> None:
        while True:
            self._busy = True
            while self._queue:
                what = self._queue.popleft()
                try:
                    if not isinstance(what, (Event, Alert)):
                        what()
                    elif self._deliver is not None:
                        self._deliver(what)
                except (
                    BaseException
                ):  # a callback may even call sys.exit(); the next one is told all the same
                    _log.exception("a callback or plugin failed on %r", what)
            self._busy = False
            if self._closed:
                return
            self._bell.wait(_LONGEST_SLEEP)


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
