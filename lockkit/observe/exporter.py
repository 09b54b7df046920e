"""The exporter: metrics of a store's locks, read on demand, so that a fleet is counted once.

Run one for each store, by ``lockkit serve`` or ``lockkit metrics``. A silent store blocks one thread at most,
and gives ``lockkit_store_up 0``, never an exception. ``lockkit_scrape_partial`` marks gaps.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from lockkit.observe.exposition import Samples, render
from lockkit.observe.instruments import METRICS
from lockkit.observe.lock_labels import LockLabels
from lockkit.observe.periods import periods_of, watched
from lockkit.observe.store_reading import LastHeld, Reading, read_store

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family

    from lockkit.sync.client import Client

__all__ = ["Exporter"]


class Exporter:
    """Reads stores, and keeps a reading for some seconds. Thread-safe; a collector for ``prometheus_client``.

    Attributes:
        more: Functions that return further samples.

    Args:
        clients: A client for each store and namespace; only their claims are read. None of them is closed.
        keep: Seconds for which one reading answers all who ask.
        patience: Seconds after which a store that has not answered counts as down.
        most: The most locks to read of each; by default ``metrics.most``.
    """

    def __init__(
        self, *clients: Client, keep: float = 5.0, patience: float = 5.0, most: int | None = None
    ) -> None:
        self.more: list[Callable[[], Samples]] = []
        self._stores = [_Store(client, keep, patience, most) for client in clients]

    def text(self) -> bytes:
        """The metrics in Prometheus' text format (``lockkit.observe.exposition.CONTENT_TYPE``)."""
        return render(self.samples())

    def samples(self) -> Samples:
        """The values of all metrics from the stores."""
        asked = [store.begin() for store in self._stores]  # all at once, because each may take its time
        found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
        for more in self.more:
            found.update((name, dict(values)) for name, values in more().items())
        for store, at in zip(self._stores, asked, strict=True):
            for (metric, labels), value in store.finish(at).values.items():
                named = tuple(zip(METRICS[metric].labels, labels, strict=True))
                found.setdefault(metric, {})[(*store.labels, *named)] = value
        return found

    def collect(self) -> Iterator[Family]:
        """The metrics as ``prometheus_client`` wants them: ``REGISTRY.register(Exporter(client))``."""
        from prometheus_client.core import GaugeMetricFamily

        for name, values in self.samples().items():
            keys = [label for label, _ in next(iter(values))]
            family = GaugeMetricFamily(name, METRICS[name].help, labels=keys)
            for labels, value in values.items():
                family.add_metric([text for _, text in labels], value)
            yield family

    def describe(self) -> Sequence[Family]:
        """No metrics, so that registering the exporter reads no store."""
        return ()


class _Store:
    """One store and namespace: the last reading, and the thread that makes the next one."""

    def __init__(self, client: Client, keep: float, patience: float, most: int | None) -> None:
        config = client.config
        self.labels = (("store", client.url), ("namespace", client.namespace))
        self._client = client
        self._keep = keep
        self._patience = patience
        self._most = config.metrics_most if most is None else most
        self._label = LockLabels.of(config)
        self._periods = periods_of(config)
        labels = dict.fromkeys((*config.metrics_names, *self._periods))
        self._last_held = LastHeld(labels, watched(config), time.time())
        self._mutex = threading.RLock()
        self._reading: Reading | None = None
        self._read_at = 0.0
        self._under_way: threading.Event | None = None

    def begin(self) -> float:
        """Have a reading made unless there is a fresh one. Returns the time of the question."""
        now = time.monotonic()
        with self._mutex:
            if self._under_way is None and not self._fresh(now):
                done = self._under_way = threading.Event()
                thread = threading.Thread(
                    target=self._read, args=(done, now + self._patience), name="lockkit-exporter", daemon=True
                )
                try:
                    thread.start()
                except RuntimeError:  # no more threads
                    self._under_way = None
        return now

    def finish(self, asked: float) -> Reading:
        """The reading for a question; that the store is down if there is none in time."""
        under_way = self._under_way
        if under_way is not None:
            under_way.wait(max(asked + self._patience - time.monotonic(), 0.0))
        with self._mutex:
            reading = self._reading
            return reading if reading is not None and self._read_at > asked - self._keep else down()

    def _fresh(self, now: float) -> bool:
        return self._reading is not None and now - self._read_at < self._keep

    def _read(self, done: threading.Event, until: float) -> None:
        began = time.monotonic()
        reading = down()
        try:
            reading = read_store(self._client, self._label, self._last_held, self._most, until)
        finally:
            for lock, period in self._periods.items():
                reading.set("lockkit_period_seconds", (lock,), period)
            with self._mutex:
                reading.set("lockkit_scrape_seconds", (), time.monotonic() - began)
                self._reading, self._read_at, self._under_way = reading, time.monotonic(), None
            done.set()


def down() -> Reading:
    """The reading of a store that does not answer."""
    reading = Reading()
    reading.set("lockkit_store_up", (), 0)
    reading.set("lockkit_scrape_partial", (), 1)
    return reading
