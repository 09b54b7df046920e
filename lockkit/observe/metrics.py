"""Metrics of this process, for prometheus_client (``pip install 'lockkit[metrics]'``).

A plugin receives the events of its clients on its own thread, so no acquire or release waits for it::

    client = lockkit.connect(plugins=[lockkit.observe.metrics.Metrics()])

or, without changing the program, the setting ``metrics.enabled``. :mod:`lockkit.observe.instruments` lists
them. In prometheus_client's multiprocess mode each worker counts for itself, whenever the client was made.
"""

from __future__ import annotations

import atexit
import os
import platform
import re
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from lockkit._version import __version__
from lockkit.hooks import hookimpl
from lockkit.lib.forks import IMPORTS, reinit
from lockkit.lib.origin import this_origin
from lockkit.observe.instruments import BUCKETS, METRICS
from lockkit.observe.lock_labels import LockLabels, SharedLabels
from lockkit.observe.measuring import Measuring
from lockkit.values.events import ALERTS, KINDS

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family

    from lockkit.config.config import Config
    from lockkit.facts import Alert, Event
    from lockkit.plugins.specs import Stats

__all__ = ["Metrics"]

_PRIORITIES = re.compile(r"P\d")
_EVERY = 2.0
"""Seconds between copies of the counters into the files of multiprocess mode, which scrapes read alone."""
_GATE = threading.RLock()
"""Held by a fork, and while lockkit is inside prometheus_client: a child must not inherit its locks taken."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_GATE.acquire, after_in_parent=_GATE.release, after_in_child=reinit(_GATE))
_made: weakref.WeakKeyDictionary[CollectorRegistry, _Instruments] = weakref.WeakKeyDictionary()
_mutex = threading.RLock()


class Metrics:
    """A plugin that keeps metrics of its clients. Two plugins on one registry share its instruments.

    Args:
        registry: The registry of the metrics; by default the one that ``prometheus_client`` exposes.
        names: Locks with their own value in the label ``lock``; None for the configured ``metrics.names``.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY, *, names: Sequence[str] | None = None) -> None:
        with _mutex:
            instruments = _made.get(registry)
            if instruments is None:
                instruments = _made[registry] = _Instruments(registry)
        self._configured = names is None
        self._instruments = instruments
        self._measuring = Measuring(instruments, LockLabels(names or ()))
        instruments.syncing.add(self)
        self._origin = this_origin()
        self._copying: threading.Thread | None = None

    def sync(self) -> None:
        """Update the metrics that repeat ``client.stats()``. A scrape of the registry does this by itself."""
        with _GATE:
            self._measuring.sync()

    @hookimpl
    def lockkit_settings(self, config: Config) -> None:
        """Take the names for labels from the configuration."""
        if self._configured:
            self._measuring.label = self._instruments.labels.of(config)

    @hookimpl
    def lockkit_stats(self, stats: Stats) -> None:
        """Learn of the counters of a client."""
        if not self._origin.is_here():
            self._measuring.forget()
            self._origin, self._copying = this_origin(), None
        with _GATE:
            self._measuring.learn(stats)
        if self._copying is None and "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            self._copying = threading.Thread(target=self._copy, name="lockkit-metrics", daemon=True)
            try:
                self._copying.start()
            except RuntimeError:  # no more threads, or the interpreter is ending: the end copies once more
                self._copying = None
            atexit.register(self.sync)

    @hookimpl
    def lockkit_event(self, event: Event) -> None:
        """Measure an event."""
        with _GATE:
            self._measuring.event(event)

    @hookimpl
    def lockkit_alert(self, alert: Alert) -> None:
        """Measure an alert."""
        with _GATE:
            self._measuring.alert(alert)

    def _copy(self) -> None:
        with IMPORTS:
            from lockkit.observe.workers import remove_empty

        never = threading.Event()
        while not never.wait(_EVERY):
            self.sync()
            folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
            if folder:
                remove_empty(folder)


class _Instruments:
    """The instruments on one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.syncing: weakref.WeakSet[Metrics] = weakref.WeakSet()
        # Before the instruments, because a registry collects in this order.
        registry.register(_Sync(self.syncing))
        mine = [metric for metric in METRICS.values() if metric.source == "process"]
        self.labels = SharedLabels()
        self._children: dict[tuple[str, tuple[str, ...]], Any] = {}
        self._counters = {
            one.name: Counter(one.name, one.help, one.labels, registry=registry)
            for one in mine
            if one.type == "counter"
        }
        self._histograms = {
            one.name: Histogram(one.name, one.help, one.labels, buckets=BUCKETS, registry=registry)
            for one in mine
            if one.type == "histogram"
        }
        self._gauges = {
            one.name: Gauge(one.name, one.help, one.labels, multiprocess_mode="max", registry=registry)
            for one in mine
            if one.type == "gauge"
        }
        for (
            kind
        ) in KINDS:  # those with known labels count from 0, so that a rule sees the first one as an increase
            self.add("lockkit_events_total", (kind,), 0)
        for kind, meaning in ALERTS.items():
            for priority in _PRIORITIES.findall(meaning):
                self.add("lockkit_alerts_total", (kind, priority), 0)
        self.set("lockkit_build_info", (__version__, platform.python_version()), 1)

    def add(self, metric: str, labels: tuple[str, ...], by: float) -> None:
        self._child(self._counters, metric, labels).inc(by)

    def observe(self, metric: str, labels: tuple[str, ...], value: float) -> None:
        self._child(self._histograms, metric, labels).observe(max(value, 0.0))

    def set(self, metric: str, labels: tuple[str, ...], value: float) -> None:
        self._child(self._gauges, metric, labels).set(value)

    def _child(self, instruments: Mapping[str, Any], metric: str, labels: tuple[str, ...]) -> Any:
        """An instrument's part for these labels; cached, because a look-up costs more than counting."""
        child = self._children.get((metric, labels))
        if child is None:
            whole = instruments[metric]
            child = self._children[metric, labels] = whole.labels(*labels) if labels else whole
        return child


class _Sync:
    """A collector without metrics, which updates those of the counters before a scrape reads them."""

    def __init__(self, syncing: Iterable[Metrics]) -> None:
        self._syncing = syncing

    def describe(self) -> Iterable[Family]:
        return ()

    def collect(self) -> Iterator[Family]:
        for metrics in list(self._syncing):
            metrics.sync()
        return iter(())
