"""The queue rule against plain readings of what it promises, over every small queue."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockkit.store.queue import RW_CAPACITY, blockers, grantable, hopeless, prefix


@dataclass(frozen=True)
class Claim:
    weight: int
    capacity: int


QUEUES = st.lists(st.builds(Claim, st.integers(1, 5), st.integers(1, 5)), max_size=7)
ONE_CAPACITY = st.integers(1, 5).flatmap(
    lambda n: st.lists(st.builds(Claim, st.integers(1, n), st.just(n)), min_size=1, max_size=7)
)


def holds(queue, place):
    return place < prefix(queue)


def test_nobody_holds_an_empty_queue():
    assert prefix([]) == 0


@given(QUEUES)
def test_the_holders_are_the_longest_prefix_that_fits(queue):
    fits = [
        count
        for count in range(len(queue) + 1)
        if sum(claim.weight for claim in queue[:count]) <= (queue[0].capacity if queue else 0)
        and all(claim.capacity == queue[0].capacity for claim in queue[:count])
    ]
    assert prefix(queue) == max(fits, default=0)


@given(QUEUES, st.builds(Claim, st.integers(1, 5), st.integers(1, 5)))
def test_a_newcomer_changes_nothing_for_those_before_it(queue, newcomer):
    assert min(prefix([*queue, newcomer]), len(queue)) == prefix(queue)


@given(ONE_CAPACITY, st.data())
def test_whoever_leaves_nobody_who_held_is_pushed_out(queue, data):
    gone = data.draw(st.integers(0, len(queue) - 1))
    rest = queue[:gone] + queue[gone + 1 :]
    assert prefix(rest) >= prefix(queue) - (gone < prefix(queue))


@given(QUEUES.filter(bool))
def test_while_all_its_blockers_stand_a_claim_cannot_hold(queue):
    """Sound: whoever else leaves, it waits as long as its blockers are there."""
    place = len(queue) - 1
    standing = blockers(queue, place)
    others = [at for at in range(place) if at not in standing]
    for left in itertools.chain.from_iterable(
        itertools.combinations(others, n) for n in range(len(others) + 1)
    ):
        rest = [claim for at, claim in enumerate(queue) if at not in left]
        assert not standing or not holds(rest, len(rest) - 1)


@given(QUEUES.filter(bool))
def test_a_claim_with_no_blockers_holds_and_one_that_waits_has_some(queue):
    place = len(queue) - 1
    if holds(queue, place):
        assert blockers(queue, place) == []
    elif queue[place].weight <= queue[place].capacity:
        assert blockers(queue, place) != []


@given(ONE_CAPACITY)
def test_no_smaller_set_would_do(queue):
    """Minimal: with any smaller set standing, some departures of the others would let it in."""
    place = len(queue) - 1
    size = len(blockers(queue, place))
    for smaller in itertools.combinations(range(place), max(0, size - 1)):
        if size:
            kept = [queue[at] for at in smaller] + [queue[place]]
            assert holds(kept, len(kept) - 1)


@given(ONE_CAPACITY)
def test_each_blocker_counts(queue):
    """When any of them goes, asking again is worthwhile: the rest no longer keeps it out."""
    place = len(queue) - 1
    standing = blockers(queue, place)
    for gone in standing:
        kept = [queue[at] for at in sorted(standing) if at != gone] + [queue[place]]
        assert holds(kept, len(kept) - 1)


@pytest.mark.parametrize(
    "weights, capacity, expected",
    [
        ([1, 1], 1, [0]),
        ([1, 1, 1], 1, [1]),
        ([1, 1, 1], 2, [1, 0]),
        ([2, 1, 1, 1], 3, [0, 2]),
        ([RW_CAPACITY, 1], RW_CAPACITY, [0]),
        ([1, 1, RW_CAPACITY], RW_CAPACITY, [1]),
    ],
    ids=["mutex", "mutex-nearest", "semaphore-both", "heaviest-first", "reader", "writer-nearest-reader"],
)
def test_whom_a_waiter_watches(weights, capacity, expected):
    assert blockers([Claim(weight, capacity) for weight in weights], len(weights) - 1) == expected


def test_a_semaphores_waiter_watches_no_more_than_its_capacity():
    for capacity in range(1, 6):
        queue = [Claim(1, capacity)] * (2 * capacity)
        assert len(blockers(queue, len(queue) - 1)) == capacity


def test_a_claim_of_another_capacity_ends_the_prefix_and_blocks():
    queue = [Claim(1, 3), Claim(1, 2), Claim(1, 3)]
    assert prefix(queue) == 1
    assert blockers(queue, 2) == [1]
    assert blockers(queue, 1) == [0]


def test_nothing_is_grantable_while_somebody_holds_outside_the_prefix():
    queue = [Claim(1, 1), Claim(1, 1)]
    assert grantable(queue, [True, False]) == 1
    assert grantable(queue, [False, True]) == 0
    assert grantable([], []) == 0


@given(ONE_CAPACITY)
def test_whoever_holds_the_prefix_does_not_close_it(queue):
    fits = prefix(queue)
    assert grantable(queue, [place < fits for place in range(len(queue))]) == fits


@st.composite
def waits_in(draw):
    """A queue with a waiting claim of somebody who may hold other claims in it."""
    capacity = draw(st.integers(1, 4))
    weights = draw(st.lists(st.integers(1, capacity), min_size=1, max_size=7))
    queue = [Claim(weight, capacity) for weight in weights]
    holds = draw(st.integers(0, prefix(queue[:-1])))
    mine = [at < holds and draw(st.booleans()) for at in range(len(queue))]
    return queue, mine, holds


@given(waits_in())
def test_hopeless_is_who_is_still_there_when_everybody_else_has_had_a_turn(drawn):
    queue, mine, holds = drawn
    last = len(queue) - 1
    found = hopeless(queue, mine, [at >= holds for at in range(len(queue))], last)
    left = list(range(len(queue)))
    while True:
        granted = left[: prefix([queue[at] for at in left])]
        done = [at for at in granted if not mine[at] and at != last]
        if not done:
            break
        left = [at for at in left if at not in done]
    if last in granted:
        assert found is None
    else:
        assert found == next(at for at in left if not mine[at])
