"""Spans and metrics by the real OpenTelemetry SDK, read from its exporters in memory."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import lockkit
from lockkit.observe.tracing import Tracing


@pytest.fixture
def told():
    """The spans that were exported, the reader of metrics, and a client."""
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    meters = MeterProvider([reader])
    tracing = Tracing(provider, meters, names=["gpu/*"])
    with lockkit.connect("memory:", plugins=[tracing]) as client:
        yield spans, reader, client
    meters.shutdown()


def points(reader):
    data = reader.get_metrics_data()
    return {
        (metric.name, *sorted(point.attributes.values())): point
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    }


def test_a_hold_is_a_span_with_its_wait_its_hold_and_its_release(told):
    spans, _, client = told
    lease = client.lock("gpu/0").acquire()
    queued = threading.Event()
    thread = threading.Thread(
        target=lambda: client.lock("gpu/0").acquire(timeout=20, on_wait=lambda _: queued.set()).release()
    )
    thread.start()
    assert queued.wait(30)
    lease.release(reason="task_failure")
    thread.join(30)
    client.driver().dispatcher.flush(20)

    found = spans.get_finished_spans()
    whole = [span for span in found if span.parent is None]
    assert [span.name for span in whole] == ["lock gpu/0", "lock gpu/0"]
    first = next(span for span in whole if span.attributes["lockkit.claim_id"] == lease.claim_id)
    assert first.attributes["lockkit.reason"] == "task_failure"
    assert first.attributes["lockkit.fence"] == lease.fence
    assert first.status.is_ok
    second = next(span for span in whole if span is not first)
    parts = [span for span in found if span.parent and span.parent.span_id == second.context.span_id]
    assert [span.name for span in parts] == ["wait", "hold", "release: normal"]
    assert parts[0].start_time == second.start_time < parts[0].end_time == parts[1].start_time
    assert all(second.start_time <= span.start_time <= span.end_time for span in parts)


def test_a_hold_that_was_lost_and_an_attempt_that_failed_are_errors(told):
    spans, _, client = told
    lease = client.lock("a").acquire()
    client.evict("a", lease.claim_id, reason="test", now=True)
    lease.release()
    with client.lock("b").acquire():
        thread = threading.Thread(target=waits_in_vain, args=(client,))
        thread.start()
        thread.join(30)
    client.driver().dispatcher.flush(20)

    bad = {
        (span.attributes["lockkit.lock"], span.attributes["lockkit.outcome"])
        for span in spans.get_finished_spans()
        if span.parent is None and not span.status.is_unset and not span.status.is_ok
    }
    assert bad == {("a", "absent"), ("b", "timeout")}


def waits_in_vain(client):
    with pytest.raises(lockkit.AcquireTimeout):
        client.lock("b").acquire(timeout=0.01)


def test_metrics_are_those_of_the_list(told):
    _, reader, client = told
    lease = client.lock("gpu/0").acquire()
    client.evict("gpu/0", lease.claim_id, reason="test", now=True)
    lease.release()
    client.lock("secret").acquire().release()
    client.driver().dispatcher.flush(20)

    found = points(reader)

    assert found["lockkit.attempts", "acquired", "gpu/*"].value == 1
    assert found["lockkit.attempts", "acquired", "other"].value == 1
    assert found["lockkit.ownership_violations",].value == 1
    assert found["lockkit.emergency_releases",].value == 0
    assert found["lockkit.hold", "other"].count == 1


def test_nothing_of_opentelemetry_is_imported_unless_asked_for():
    program = (
        "import sys, lockkit\n"
        "with lockkit.connect('memory:') as client:\n"
        "    client.lock('a').acquire().release()\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry', 'prometheus_client'))])"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"
