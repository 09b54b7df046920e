"""The Redis store when the server's clock is stepped back and forth."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("redis")

import lockkit
from lockkit.store.spi import RELEASED, Granted, Lapsed, Queued
from lockkit.testing.claims import claim, queue, renew, states, take
from lockkit.values.names import claim_id

AT_ONCE = 1.0
HOUR = 3600.0


@pytest.mark.parametrize("delay", [0.0, 2.0])
def test_when_the_clock_steps_back_an_hour_nobody_gets_more_time_than_was_asked_for(
    server, clock, store, full, delay
):
    held = [take(store, ttl=10, lock_delay=delay, **shape) for shape in full]
    early = queue(store, **full[0])
    clock.server.step(-HOUR)

    newcomer = queue(store, **full[0])

    info = store.inspect("a", 2.0)
    assert [each.claim_id for each in info.claims[-2:]] == [claim_id(early.token), claim_id(newcomer.token)]
    for each in info.claims[: len(full)]:
        assert each.state == "HELD"
        assert each.deadline - info.read_at <= 10 + delay + 0.01
        assert each.since <= info.read_at
    for each in info.claims[len(full) :]:
        assert each.deadline - info.read_at <= 6.01
    fences = [each.fence for each in info.claims]
    assert fences == sorted(set(fences))
    for _ in range(2):
        clock.both(4.9 + delay / 2)
        for waiter in (early, newcomer):
            assert renew(store, waiter).state == "WAITING"
    clock.both(0.3)
    assert isinstance(store.acquire(early, False, 2.0), Granted)
    assert {renew(store, one, fence).state for one, fence in held} == {"LOST"}


def test_when_the_clock_steps_back_a_holder_goes_on_renewing(server, clock, store, full):
    held = [take(store, ttl=10, **shape) for shape in full]
    for back in (0.002, 1.0, HOUR):
        clock.server.step(-back)
        for one, fence in held:
            assert renew(store, one, fence).state == "HELD"
            assert store.extend(one, fence, 5, 2.0).state == "HELD"
    assert [store.release(one, 2.0) for one, _ in held] == [RELEASED] * len(held)
    assert states(store) == []


@pytest.mark.parametrize("what", ["release", "ask"])
def test_whoever_comes_first_after_a_step_back_sees_to_those_who_wait(clock, store, what):
    one, _ = take(store, ttl=30)
    clock.both(5)
    two, _ = queue(store), queue(store)
    if what == "ask":
        store.release(one, 2.0)
        clock.server.step(-4)
        assert isinstance(store.acquire(two, False, 2.0), Granted)
    else:
        clock.server.step(-4)
        assert store.release(one, 2.0) == RELEASED
    info = store.inspect("a", 2.0)
    assert info.claims[-1].deadline - info.read_at <= 6.01


@pytest.mark.parametrize("what", ["release", "ask"])
def test_a_step_back_after_a_hand_off_is_seen(clock, store, what):
    one, _ = take(store)
    two = queue(store, ttl=10)
    clock.both(3)
    store.release(one, 2.0)
    if what == "ask":
        clock.both(3)
        store.acquire(two, False, 2.0)
    clock.server.step(-2.0)
    queue(store)
    info = store.inspect("a", 2.0)
    assert info.claims[0].claim_id == claim_id(two.token)
    assert info.claims[0].deadline - info.read_at <= (6.01 if what == "release" else 10.01)


@pytest.mark.parametrize("ends", [{"min_hold": 20.0}, {"lock_delay": 8.0}], ids=str)
def test_when_the_clock_steps_back_a_lingering_claim_blocks_no_longer_than_was_asked_for(clock, store, ends):
    one, _ = take(store, ttl=30, **ends)
    store.release(one, 2.0, how="ungraceful")
    assert states(store) == ["LINGERING"]
    clock.server.step(-HOUR)

    waiter = queue(store)
    clock.both(5)
    assert isinstance(store.acquire(waiter, False, 2.0), Queued)
    waited = 5
    while isinstance(store.acquire(waiter, False, 2.0), Queued):
        clock.both(1)
        waited += 1
    assert isinstance(store.acquire(waiter, False, 2.0), Granted)
    assert waited <= next(iter(ends.values())) + 1


def test_when_the_clock_steps_forward_an_hour_the_holder_is_lost_and_the_next_fence_is_higher(
    clock, store, full
):
    held = [take(store, ttl=10, **shape) for shape in full]
    waiter = queue(store, **full[0])
    clock.server.step(HOUR)

    assert {renew(store, one, fence).state for one, fence in held} == {"LOST"}
    assert renew(store, waiter).state == "LOST"
    _, ahead = take(store, **full[0])
    assert ahead > held[-1][1]
    clock.server.step(-HOUR)
    shared = {"capacity": 9, "kind": "semaphore"}
    fences = [take(store, "b", **shared)[1] for _ in range(3)]
    assert fences == sorted(set(fences))


@pytest.mark.parametrize("step", [HOUR, -HOUR, 29.0, -29.0, 31.0, -31.0])
def test_after_a_step_of_the_clock_at_most_one_create_is_refused_and_fences_rise(clock, store, opened, step):
    fences = []
    other = opened()
    for each in (store, other):
        one, fence = take(each)
        fences.append(fence)
        each.release(one, 2.0)
    for number in range(3):
        clock.server.step(step if number % 2 == 0 else -step)
        for each in (store, other):
            one = claim()
            answer = each.acquire(one, True, 2.0)
            if isinstance(answer, Lapsed):
                assert answer == Lapsed("late")
                one = claim()
                answer = each.acquire(one, True, 2.0)
            assert isinstance(answer, Granted)
            fences.append(answer.fence)
            assert each.release(one, 2.0) == RELEASED
    assert fences == sorted(set(fences))


def test_a_client_notices_no_step_of_the_clock(server):
    with lockkit.connect(server.url()) as client:
        for step in (0.0, HOUR, -HOUR, -HOUR, HOUR):
            server.clock.step(step)
            began = time.monotonic()
            with client.lock("a").acquire(timeout=2):
                assert time.monotonic() - began < AT_ONCE
