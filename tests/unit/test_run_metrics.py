"""The metrics of a `lockkit run`: on their own clock, read back from their text, and on a hanging disk."""

from __future__ import annotations

import threading

import pytest

from lockkit.cli import textfile
from lockkit.observe.exposition import parse, render
from lockkit.observe.lock_labels import LockLabels
from lockkit.observe.run_metrics import RunMetrics, earlier


class Clock:
    """Seconds that a test sets; the wall clock is 1000 s ahead."""

    at = 0.0

    def __call__(self):
        return self.at

    def wall(self):
        return self.at + 1000


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def metrics(clock):
    made = RunMetrics("job", ["a"], clock.wall, clock)
    made.labelled(LockLabels(["a"]))
    return made


def value(samples, name, lock="a"):
    return samples.get(f"lockkit_run_{name}", {}).get((("run", "job"), ("lock", lock)))


def test_the_wait_grows_until_the_grant_and_the_hold_until_the_release(metrics, clock):
    clock.at = 3
    assert value(metrics.samples({}), "wait_seconds") == 3
    assert value(metrics.samples({}), "hold_seconds") is None
    metrics.acquired()
    clock.at = 7
    assert value(metrics.samples({}), "wait_seconds") == 3
    assert value(metrics.samples({}), "hold_seconds") == 4
    metrics.released()
    clock.at = 9
    metrics.ended(0)
    told = metrics.samples({})
    assert value(told, "hold_seconds") == 4
    assert value(told, "ended_timestamp_seconds") == value(told, "last_success_timestamp_seconds") == 1009


def test_a_wall_clock_that_steps_back_makes_no_negative_time(clock):
    wall = iter((1000.0, 10.0))
    metrics = RunMetrics("job", ["a"], lambda: next(wall), clock)
    metrics.labelled(LockLabels(["a"]))
    clock.at = 5
    metrics.acquired()
    metrics.released()
    metrics.ended(0)

    told = metrics.samples({})

    assert (value(told, "wait_seconds"), value(told, "hold_seconds")) == (5, 0)


def test_the_text_is_read_back_as_it_was_written(metrics):
    metrics.acquired()
    odd = RunMetrics('a"b\\n\nc{x} 1', ["a"])
    for one in (metrics, odd):
        told = one.samples({})
        assert parse(render(told)) == told


def test_a_file_that_is_too_large_is_not_read(tmp_path, metrics):
    path = tmp_path / "job.prom"
    path.write_bytes(render(metrics.samples({})))
    assert earlier(path)
    path.write_bytes(path.read_bytes() + b"#" * (1 << 20))

    assert earlier(path) == {}


def test_the_end_of_a_run_does_not_wait_for_a_disk_that_hangs(monkeypatch, tmp_path):
    answers, told = threading.Event(), []
    monkeypatch.setattr(textfile, "write", lambda path, text: answers.wait())
    monkeypatch.setattr(textfile, "_PATIENCE", 0.05)
    file = textfile.Textfile(str(tmp_path / "job.prom"), ["a"], told.append)

    file.close(0)

    answers.set()
    assert [sentence.rpartition(": ")[2] for sentence in told] == ["the disk does not answer"]
