"""Facts and counters: what is handed out can be kept, shown and compared."""

import json
import pickle
import sys
import threading

import pytest

from lockkit.facts import Alert, Event, LayerReport, ReleaseReport
from lockkit.values.events import COUNTERS, Counters


def test_an_empty_mapping_that_many_facts_share_cannot_be_changed():
    event = Event("acquired", "a")

    for change in (
        lambda: event.data.setdefault("seq", 0),
        lambda: event.data.update(seq=0),
        lambda: event.data.__setitem__("seq", 0),
        lambda: event.data.__ior__({"seq": 0}),
    ):
        with pytest.raises(TypeError, match="shared"):
            change()
    assert Alert("lost", "P1", "gone").data == {}
    assert json.dumps(event.data) == "{}"
    assert pickle.loads(pickle.dumps(event)) == event


def test_a_report_keeps_its_errors_to_itself():
    layers = (LayerReport("normal", "UNKNOWN"),)
    report = ReleaseReport("a", "0123", 7, "ABANDONED", "normal", layers, 1.0, (OSError(5, "secret"),))
    copy = pickle.loads(pickle.dumps(report))

    assert "secret" not in repr(report)
    assert (copy, hash(copy)) == (report, hash(report))
    assert copy == report._replace(errors=())
    assert report != report._replace(fence=8)


def test_counting_loses_nothing_among_threads():
    counters = Counters()
    threads = [
        threading.Thread(target=lambda: [counters.add("acquired") for _ in range(2000)]) for _ in range(4)
    ]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            counters.read()
    finally:
        sys.setswitchinterval(before)
    counters.add("renewals", 500)

    assert counters.read() == dict.fromkeys(COUNTERS, 0) | {"acquired": 8000, "renewals": 500}


def test_reading_that_is_cut_short_changes_nothing():
    """Ctrl-C between any two bytecodes of a read."""
    counters = Counters()
    counters.add("busy", 3)

    def trace(frame, event, _):
        frame.f_trace_opcodes = True
        if event == "opcode":
            seen[0] += 1
            if seen[0] == at:
                raise KeyboardInterrupt
        return trace

    for limit in range(1, 400):
        at = limit
        seen = [0]
        sys.settrace(trace)
        try:
            counters.read()
        except KeyboardInterrupt:
            continue
        finally:
            sys.settrace(None)
        break

    assert counters.read()["busy"] == 3
    assert sum(counters.read().values()) == 3
