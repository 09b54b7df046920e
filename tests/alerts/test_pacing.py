"""When a channel is tried next: growing pauses, a limit that holds in every window, and room for P0."""

from __future__ import annotations

import pytest

from lockkit.alerts.pacing import Limits, Pace, Send, Wait, after_failure, after_success, decide

LIMITS = Limits(most=4, window=60.0, first=1.0, longest=300.0)


def test_nothing_is_tried_while_nothing_waits():
    assert decide(Pace(), LIMITS, 0.0, waiting=0, urgent=False) == Wait(None)


def test_the_pause_doubles_up_to_the_longest():
    pace, pauses = Pace(), []
    for _ in range(12):
        pace = after_failure(pace, LIMITS, 100.0, 1.0)
        pauses.append(pace.until - 100.0)

    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]


def test_jitter_takes_at_most_half_of_a_pause():
    assert after_failure(Pace(failures=4), LIMITS, 0.0, 0.0).until == 8.0
    assert after_failure(Pace(failures=4), LIMITS, 0.0, 0.5).until == 12.0


@pytest.mark.parametrize("wish, pause", [(None, 1.0), (0.1, 1.0), (40.0, 40.0), (1e9, 3600.0)])
def test_a_service_is_left_alone_for_as_long_as_it_wishes_up_to_an_hour(wish, pause):
    assert after_failure(Pace(), LIMITS, 0.0, 1.0, wish=wish).until == pause


def test_a_success_ends_the_pause():
    pace = after_success(Pace(failures=7, until=500.0), LIMITS, 100.0)

    assert (pace.failures, pace.until) == (0, 0.0)
    assert decide(pace, LIMITS, 100.0, waiting=1, urgent=False) == Send(1)


def test_the_last_message_of_a_window_is_a_summary_of_all_that_wait():
    # One of four is kept for P0.
    assert decide(Pace(sent=(10.0,)), LIMITS, 11.0, waiting=9, urgent=False) == Send(1)
    assert decide(Pace(sent=(10.0, 11.0)), LIMITS, 12.0, waiting=9, urgent=False) == Send(9)


def test_a_summary_has_a_largest_size():
    limits = LIMITS._replace(summary=5)

    assert decide(Pace(sent=(1.0, 2.0)), limits, 3.0, waiting=9, urgent=False) == Send(5)


def test_a_full_window_waits_until_its_oldest_message_is_out_of_it():
    full = Pace(sent=(10.0, 20.0, 30.0))

    assert decide(full, LIMITS, 40.0, waiting=1, urgent=False) == Wait(30.0)
    assert decide(full, LIMITS, 70.0, waiting=1, urgent=False) == Send(1)


def test_a_p0_may_use_what_is_kept_for_it():
    full = Pace(sent=(10.0, 20.0, 30.0))

    assert decide(full, LIMITS, 40.0, waiting=3, urgent=True) == Send(3)
    # and once that is used, others wait for two messages to leave the window
    fuller = after_success(full, LIMITS, 40.0)
    assert decide(fuller, LIMITS, 41.0, waiting=1, urgent=True) == Wait(29.0)
    assert decide(fuller, LIMITS, 41.0, waiting=1, urgent=False) == Wait(39.0)


def test_a_failure_that_may_have_been_a_success_counts_in_the_window():
    assert after_failure(Pace(), LIMITS, 5.0, 0.0, maybe=True).sent == (5.0,)
    assert after_failure(Pace(), LIMITS, 5.0, 0.0).sent == ()


def test_a_window_forgets():
    assert after_success(Pace(sent=(1.0, 2.0)), LIMITS, 61.5).sent == (2.0, 61.5)
