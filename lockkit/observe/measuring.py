"""From events, alerts and counters to metrics: which one each moves, and by how much, for all instruments."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from lockkit.facts import LOSSES, Alert, Event
from lockkit.observe.instruments import METRICS, OTHER

if TYPE_CHECKING:
    from lockkit.observe.lock_labels import LockLabels
    from lockkit.plugins.specs import Stats

__all__ = ["Instruments", "Measuring"]

_STATS = {metric.stat: metric.name for metric in METRICS.values() if metric.stat}
_REASONS = frozenset(
    (
        *LOSSES,
        *("normal", "error", "sigterm", "exit", "collected"),
        *("timeout", "forced", "task_failure", "task_crash"),
        *("ignore", "reject", "retry", "soft_time_limit"),  # how a Celery task ended
    )
)
"""The reasons that are values of a label; a program may give any text."""
_OUTCOMES = {
    "acquired": "acquired",
    "busy": "busy",
    "timeout": "timeout",
    "cancelled": "cancelled",
    "failed": "failed",
}
_RELEASES = {"released": "released", "absent": "lost", "abandoned": "abandoned"}
_LOSSES = ("lost", "max_hold")
_REMEMBERED = 1024
"""Names of which the last release and the last grant are remembered, for the times of hand-offs."""
_NEVER = dict.fromkeys(("sent", "released", "since", "granted"), float("inf"))


class Instruments(Protocol):
    """Receives measurements. Thread-safe. Metrics are given by name, labels in the order of its list."""

    def add(self, metric: str, labels: tuple[str, ...], by: float) -> None:
        """Count."""

    def observe(self, metric: str, labels: tuple[str, ...], value: float) -> None:
        """Enter a value into a histogram."""

    def set(self, metric: str, labels: tuple[str, ...], value: float) -> None:
        """Set a gauge."""


class Measuring:
    """Measures one process. Thread-safe.

    Args:
        to: The instruments.
        label: Gives the label of a lock.
    """

    def __init__(self, to: Instruments, label: LockLabels) -> None:
        self.label = label
        self._to = to
        self._mutex = threading.RLock()
        self._read: dict[Stats, Mapping[str, int]] = {}
        self._turns: OrderedDict[str, dict[str, float]] = OrderedDict()
        self._acquired: set[str] = set()

    def event(self, event: Event) -> None:
        """Measure an event."""
        kind, lock = event.kind, self.label(event.name)
        self._to.add("lockkit_events_total", (kind,), 1)
        if kind in _OUTCOMES:
            self._attempt(_OUTCOMES[kind], lock, event)
        elif kind in _RELEASES:
            self._release(_RELEASES[kind], lock, event)
        elif kind in _LOSSES:
            self._to.add("lockkit_losses_total", (lock, _known(event.reason)), 1)
        elif kind == "cleanup":
            labels = (_text(event.data.get("plugin")), _text(event.data.get("outcome")).lower())
            self._to.add("lockkit_cleanups_total", labels, 1)
        elif (metric := _COUNTED.get(kind)) is not None:
            self._to.add(metric, (lock,), 1)

    def alert(self, alert: Alert) -> None:
        """Measure an alert."""
        self._to.add("lockkit_alerts_total", (alert.kind, alert.priority), 1)

    def learn(self, stats: Stats) -> None:
        """Measure the counters of one more client from now on."""
        with self._mutex:
            self._read.setdefault(stats, {})

    def sync(self) -> None:
        """Add to the metrics what the counters have counted since the last call."""
        with self._mutex:
            for stats, before in list(self._read.items()):
                final = stats.final
                now = stats()
                for counter, metric in _STATS.items():
                    more = now[counter] - before.get(counter, 0)
                    if more:
                        self._to.add(metric, (), more)
                if final:
                    del self._read[stats]
                else:
                    self._read[stats] = now

    def forget(self) -> None:
        """Leave the clients of a parent process to it, in a forked child."""
        self._mutex = threading.RLock()
        self._read = {}
        self._turns = OrderedDict()

    def _attempt(self, outcome: str, lock: str, event: Event) -> None:
        self._to.add("lockkit_attempts_total", (lock, outcome), 1)
        if event.duration is not None and outcome != "busy":
            self._to.observe("lockkit_wait_seconds", (lock, outcome), event.duration)
        if outcome == "acquired":
            if (
                lock not in self._acquired
            ):  # losses count from 0, so that a rule sees the first one as an increase
                self._acquired.add(lock)
                for reason in LOSSES:
                    self._to.add("lockkit_losses_total", (lock, reason), 0)
            self._to.set("lockkit_last_acquired_timestamp_seconds", (lock,), event.at)
            if event.duration is not None:
                since = event.boottime - event.duration
                self._hand_off(lock, event.name, {"since": since, "granted": event.boottime})

    def _release(self, outcome: str, lock: str, event: Event) -> None:
        self._to.add("lockkit_releases_total", (lock, outcome, _known(event.reason)), 1)
        if outcome == "released":
            if event.duration is not None:
                self._to.observe("lockkit_hold_seconds", (lock,), event.duration)
            self._to.set("lockkit_last_released_timestamp_seconds", (lock,), event.at)
            sent = event.boottime if event.until is None else event.until
            self._hand_off(lock, event.name, {"sent": sent, "released": event.boottime})
        layers = event.data.get("layers")
        for layer, told in layers.items() if isinstance(layers, Mapping) else ():
            self._to.add("lockkit_release_layers_total", (layer, _text(told["outcome"]).lower()), 1)
            self._to.observe("lockkit_release_layer_seconds", (layer,), told["seconds"])

    def _hand_off(self, lock: str, name: str, times: dict[str, float]) -> None:
        """Measure from a release to the grant of a claim that waited for it. Either may be reported first."""
        with self._mutex:
            last = self._turns.pop(name, _NEVER) | times
            if last["since"] <= last["sent"] <= last["granted"]:
                self._to.observe(
                    "lockkit_handoff_seconds", (lock,), max(last["granted"] - last["released"], 0.0)
                )
                return
            self._turns[name] = last
            if len(self._turns) > _REMEMBERED:
                self._turns.popitem(last=False)


_COUNTED: Mapping[str, str] = {
    "queued": "lockkit_queued_total",
    "skipped": "lockkit_skipped_total",
    "evicted": "lockkit_evictions_total",
}
_text: Callable[[object], str] = str


def _known(reason: str) -> str:
    return reason if reason in _REASONS else OTHER
