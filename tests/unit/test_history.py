"""The checker of histories is checked itself: what is wrong is found, and nothing else."""

from __future__ import annotations

import pytest

from lockkit.values.history import Period, falling, overlaps, repeated


@pytest.mark.parametrize(
    "periods, found",
    [
        ([], 0),
        ([Period(0, 1, 1), Period(1, 2, 2)], 0),
        ([Period(0, 1, 1), Period(0.9, 2, 2)], 1),
        ([Period(0, 9, 1), Period(2, 3, 2), Period(4, 5, 3)], 2),
        ([Period(0, 5, 1, capacity=2), Period(1, 5, 2, capacity=2)], 0),
        ([Period(0, 5, 1, capacity=2), Period(1, 5, 2, capacity=2), Period(2, 3, 3, capacity=2)], 1),
        ([Period(0, 5, 1, weight=1, capacity=9), Period(1, 2, 2, weight=9, capacity=9)], 1),
    ],
)
def test_the_checker_finds_overlaps(periods, found):
    assert len(overlaps(periods)) == found
    assert len(overlaps(reversed(periods))) == found


@pytest.mark.parametrize(
    "periods, found",
    [
        ([Period(0, 1, 1), Period(1, 2, 2), Period(3, 4, 9)], 0),
        ([Period(0, 1, 2), Period(1, 2, 1)], 1),
        ([Period(0, 1, 2), Period(1, 2, 2)], 1),
        ([Period(0, 5, 2), Period(1, 2, 1)], 0),
        ([Period(0, 1, 1), Period(2, 3, 5), Period(4, 5, 3)], 1),
        ([Period(0, 1, 2, capacity=2), Period(1, 2, 1, capacity=2)], 0),
        ([Period(0, 1, 2, capacity=2), Period(1, 2, 1, weight=2, capacity=2)], 1),
        ([Period(0, 1, 2, weight=2, capacity=2), Period(1, 2, 1, capacity=2)], 1),
    ],
)
def test_the_checker_finds_fences_that_do_not_rise(periods, found):
    assert len(falling(periods)) == found


@pytest.mark.parametrize(
    "periods, found",
    [
        ([Period(0, 1, 1), Period(1, 2, 2)], 0),
        ([Period(0, 1, 1), Period(5, 6, 1)], 1),
        ([Period(5, 6, 1), Period(0, 9, 1)], 1),
        ([Period(0, 1, 1), Period(2, 3, 1), Period(4, 5, 1)], 3),
        ([Period(0, 1, 1, capacity=2), Period(0, 1, 1, capacity=2)], 0),
        ([Period(0, 1, 1, capacity=2), Period(2, 3, 1, weight=2, capacity=2)], 1),
    ],
)
def test_the_checker_finds_one_fence_given_twice(periods, found):
    assert len(repeated(periods)) == found
