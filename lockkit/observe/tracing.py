"""Traces and metrics for OpenTelemetry (``opentelemetry-api``): a span for each hold, and the usual metrics.

    client = lockkit.connect(plugins=[lockkit.observe.tracing.Tracing()])

A plugin hears of a hold afterwards, on its own thread, so no acquire or release waits for an exporter. So a
span has no parent among the program's spans; those may carry its claim id, too (``lease.claim_id``).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.trace import Status, StatusCode, TracerProvider

from lockkit._version import __version__
from lockkit.hooks import hookimpl
from lockkit.observe.instruments import METRICS
from lockkit.observe.lock_labels import LockLabels, SharedLabels
from lockkit.observe.measuring import Measuring

if TYPE_CHECKING:
    from lockkit.config.config import Config
    from lockkit.facts import Alert, Event
    from lockkit.observe.instruments import Metric
    from lockkit.plugins.specs import Stats

__all__ = ["Tracing"]

_OPEN = 10_000
"""Holds that are remembered until they end; of older ones there is no span."""
_ENDS = ("released", "absent", "abandoned", "collected")
_FAILED = ("timeout", "cancelled", "failed")
_MARKS = ("lost", "max_hold", "renewal_failed", "emergency", "evicted", "release_requested")


class Tracing:
    """A plugin that keeps metrics and makes a span of each hold; wait, hold and release layers are children.

    Args:
        tracer_provider: The provider of the tracer; None for the global one.
        meter_provider: The provider of the meter; None for the global one.
        names: Locks with their own label ``lock`` in metrics; None: ``metrics.names``. Spans name all locks.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        *,
        names: Sequence[str] | None = None,
    ) -> None:
        self._tracer = trace.get_tracer("lockkit", __version__, tracer_provider)
        self._configured = names is None
        self._labels = SharedLabels()
        self._instruments = _Instruments(metrics.get_meter("lockkit", __version__, meter_provider))
        self._measuring = self._instruments.measuring = Measuring(self._instruments, LockLabels(names or ()))
        self._mutex = threading.RLock()
        self._open: OrderedDict[str, list[Event]] = OrderedDict()

    @hookimpl
    def lockkit_settings(self, config: Config) -> None:
        """Take the names for metrics from the configuration."""
        if self._configured:
            self._measuring.label = self._labels.of(config)

    @hookimpl
    def lockkit_stats(self, stats: Stats) -> None:
        """Learn of the counters of a client."""
        self._measuring.learn(stats)

    @hookimpl
    def lockkit_alert(self, alert: Alert) -> None:
        """Measure an alert."""
        self._measuring.alert(alert)

    @hookimpl
    def lockkit_event(self, event: Event) -> None:
        """Measure an event, and make the span of a hold that is over or of an attempt that failed."""
        self._measuring.event(event)
        if event.kind in _FAILED:
            self._failed(event)
        elif event.claim_id:
            self._note(event)

    def _note(self, event: Event) -> None:
        with self._mutex:
            if event.kind == "acquired":
                self._open[event.claim_id] = [event]
                if len(self._open) > _OPEN:
                    self._open.popitem(last=False)
                return
            known = self._open.get(event.claim_id)
            if known is None:
                return
            if event.kind in _ENDS:
                del self._open[event.claim_id]
            elif event.kind in _MARKS:
                known.append(event)
        if event.kind in _ENDS:
            self._hold(known[0], known[1:], event)

    def _hold(self, acquired: Event, marks: Sequence[Event], end: Event) -> None:
        """The span of a hold, from the call of acquire to the end of the release."""
        layers = end.data.get("layers")
        timed = [
            (layer, str(told["outcome"]), float(told["seconds"]))
            for layer, told in (layers.items() if isinstance(layers, Mapping) else ())
        ]
        begun = acquired.at - (acquired.duration or 0.0)
        released = max(end.at - sum(seconds for _, _, seconds in timed), acquired.at)
        about: dict[str, str | int] = {"lockkit.lock": end.name, "lockkit.claim_id": end.claim_id}
        facts = {**about, "lockkit.fence": acquired.fence or 0, "lockkit.reason": end.reason}
        span = self._tracer.start_span(
            f"lock {end.name}", start_time=_ns(begun), attributes={**facts, "lockkit.outcome": end.kind}
        )
        inside = trace.set_span_in_context(span)
        at = released
        parts = [("wait", begun, acquired.at, ""), ("hold", acquired.at, released, "")]
        for layer, outcome, seconds in timed:
            parts.append((f"release: {layer}", at, at + seconds, outcome))
            at += seconds
        for name, since, until, outcome in parts:
            child = self._tracer.start_span(
                name,
                inside,
                start_time=_ns(since),
                attributes=about | ({"lockkit.outcome": outcome} if outcome else {}),
            )
            child.end(_ns(until))
        for mark in marks:
            span.add_event(mark.kind, {"reason": mark.reason}, timestamp=_ns(mark.at))
        if end.kind != "released" or any(mark.kind == "lost" for mark in marks):
            span.set_status(Status(StatusCode.ERROR, end.kind if end.kind != "released" else "lost"))
        span.end(_ns(end.at))

    def _failed(self, event: Event) -> None:
        """The span of an attempt that got no lock."""
        attributes = {"lockkit.lock": event.name, "lockkit.outcome": event.kind}
        if event.data.get("holder"):
            attributes["lockkit.holder"] = str(event.data["holder"])
        since = _ns(event.at - (event.duration or 0.0))
        span = self._tracer.start_span(f"lock {event.name}", start_time=since, attributes=attributes)
        span.set_status(Status(StatusCode.ERROR, event.kind))
        span.end(_ns(event.at))


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)


class _Instruments:
    """The instruments of one meter. OpenTelemetry's Prometheus exporter gives them the names of the list."""

    measuring: Measuring

    def __init__(self, meter: metrics.Meter) -> None:
        mine = [
            one for one in METRICS.values() if one.source == "process" and one.name != "lockkit_build_info"
        ]
        self._totals = {one.name: 0.0 for one in mine if one.stat}
        for one in mine:
            if one.stat:
                meter.create_observable_counter(_name(one), [self._observed(one.name)], description=one.help)
        self._counters = {
            one.name: meter.create_counter(_name(one), description=one.help)
            for one in mine
            if one.type == "counter" and not one.stat
        }
        self._histograms = {
            one.name: meter.create_histogram(_name(one), "s", one.help)
            for one in mine
            if one.type == "histogram"
        }
        self._gauges = {
            one.name: meter.create_gauge(_name(one), "s", one.help) for one in mine if one.type == "gauge"
        }

    def add(self, metric: str, labels: tuple[str, ...], by: float) -> None:
        if metric in self._totals:
            self._totals[metric] += by  # only Measuring.sync does this, under its mutex
        else:
            self._counters[metric].add(by, _attributes(metric, labels))

    def observe(self, metric: str, labels: tuple[str, ...], value: float) -> None:
        self._histograms[metric].record(max(value, 0.0), _attributes(metric, labels))

    def set(self, metric: str, labels: tuple[str, ...], value: float) -> None:
        self._gauges[metric].set(value, _attributes(metric, labels))

    def _observed(self, metric: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_options: CallbackOptions) -> Iterator[Observation]:
            self.measuring.sync()
            yield Observation(self._totals[metric])

        return observe


def _attributes(metric: str, labels: tuple[str, ...]) -> dict[str, str]:
    return dict(zip(METRICS[metric].labels, labels, strict=True))


def _name(metric: Metric) -> str:
    """The name in OpenTelemetry's way: ``lockkit.wait`` for ``lockkit_wait_seconds``."""
    short = metric.name.removeprefix("lockkit_").removesuffix("_total").removesuffix("_seconds")
    return f"lockkit.{short}"
