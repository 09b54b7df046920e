"""The stopwatch of running cleanup hooks, which a signal handler may interrupt."""

from __future__ import annotations

import threading

import pytest

from lockkit.drivers.stopwatch import Stopwatch
from lockkit.testing.clocks import ShiftedClock


@pytest.fixture
def clock():
    clock = ShiftedClock()
    clock.freeze()
    return clock


def test_it_runs_while_any_thread_is_inside(clock):
    watch = Stopwatch(clock, longest=10.0)
    with watch:
        clock.advance(1.0)
        thread = threading.Thread(target=watch.__enter__)
        thread.start()
        thread.join()
        clock.advance(1.0)
        assert watch.moving
    clock.advance(1.0)
    assert watch.moving
    assert watch.total() == pytest.approx(3.0)


def test_an_exit_that_a_signal_cut_short_stops_it_after_its_longest_stretch_and_never_turns_it_back(
    clock,
):
    watch = Stopwatch(clock, longest=10.0)
    watch.__enter__()
    clock.advance(100.0)
    assert not watch.moving
    assert watch.total() == pytest.approx(10.0)
    with watch:  # the release goes on
        clock.advance(1.0)
        assert watch.moving
        assert watch.total() == pytest.approx(11.0)
    clock.advance(1.0)
    assert not watch.moving
    assert watch.total() == pytest.approx(11.0)
