"""The wait of a task over its messages, as arithmetic."""

from __future__ import annotations

import pytest

from lockkit.integrations.celery.retrying import HEADER, Wait, countdown, in_hand, wait_in


@pytest.mark.parametrize(
    "tries, low, high", [(0, 2.0, 4.0), (1, 2.0, 8.0), (2, 2.0, 16.0), (3, 2.0, 30.0), (10**6, 2.0, 30.0)]
)
def test_the_span_of_the_next_try_doubles_up_to_30_seconds(tries, low, high):
    assert countdown(tries, None, None, draw=lambda low, high: low) == low
    assert countdown(tries, None, None, draw=lambda low, high: high) == high


def test_the_last_try_comes_when_the_wait_is_over():
    assert countdown(5, 0.5, None) == 0.5


@pytest.mark.parametrize("visibility", [1.0, 3.0, 20.0])
def test_the_next_try_stays_below_the_visibility_timeout(visibility):
    assert countdown(5, None, visibility, draw=lambda low, high: high) == visibility / 2
    assert countdown(5, None, visibility, draw=lambda low, high: low) <= visibility / 2


def test_a_message_goes_on_with_its_wait():
    wait = wait_in({HEADER: {"since": 100.0, "tries": 3, "retries": 1}}, 1, 160.0)
    assert wait == Wait(100.0, 3, 1)
    assert wait.left(160.0, 100.0) == 40.0
    assert wait.left(300.0, 100.0) == 0.0
    assert wait.left(300.0, None) is None
    assert wait.header() == {"since": 100.0, "tries": 4, "retries": 1}


@pytest.mark.parametrize(
    "headers",
    [
        None,
        {},
        {HEADER: None},
        {HEADER: {"since": "x", "tries": 1, "retries": 0}},
        {HEADER: {"since": 1.0, "tries": -1, "retries": 0}},
        {HEADER: {"since": 1e300, "tries": 1, "retries": 0}},
        {HEADER: {"since": 1.0, "tries": 1}},
        {HEADER: {"since": 1.0, "tries": 1, "retries": 1}},  # of the task's own retry before this one
    ],
)
def test_what_makes_no_sense_or_belongs_to_another_retry_begins_a_new_wait(headers):
    assert wait_in(headers, 0, 160.0) == Wait(160.0, 0, 0)


def test_a_clock_that_is_behind_costs_a_task_no_time():
    assert wait_in({HEADER: {"since": 200.0, "tries": 1, "retries": 0}}, 0, 160.0).left(160.0, 100.0) == 100.0


@pytest.mark.parametrize(
    "visibility, limits, span",
    [
        (None, (None, None), (2.0, 5.0)),
        (3600.0, (600.0, None), (2.0, 5.0)),
        (10.0, (None, None), (2.0, 4.0)),
        (2.5, (), (1.0, 1.0)),
        (3600.0, (None, 5.0), (2.0, 2.0)),
    ],
)
def test_a_copy_is_in_hand_for_less_than_half_of_what_would_end_it(visibility, limits, span):
    spans = []
    in_hand(visibility, limits, lambda low, high: spans.append((low, high)) or low)
    assert spans == [span]
