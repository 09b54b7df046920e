"""The rules that the memory store and the embedded store share, at the service-provider interface.

On a clock that the test owns, so nothing here sleeps.
"""

from __future__ import annotations

import threading

import pytest

from lockkit.errors import ConfigError
from lockkit.store.queue import RW_CAPACITY
from lockkit.store.spi import ABSENT, RELEASED, Busy, Conflict, Granted, Lapsed, OpenOptions, Queued
from lockkit.testing.claims import claim, queue, renew, states, take
from lockkit.values.names import claim_id
from lockkit_memory.backend import MemoryBackend
from lockkit_memory.store import MemoryStore
from lockkit_sqlite.backend import open_store
from support.clocks import StillClock


@pytest.fixture
def clock():
    return StillClock(look=1e-5)


@pytest.fixture(params=["memory", "sqlite"])
def store(request, clock, tmp_path):
    options = OpenOptions(clock=clock)
    if request.param == "memory":
        opened = MemoryBackend(MemoryStore(clock), options)
    else:
        tmp_path.chmod(0o700)
        opened = open_store(f"sqlite:{tmp_path}/locks.db", options)
    yield opened
    opened.close()


SHAPES = {
    "mutex": [{"weight": 1, "capacity": 1}],
    "semaphore": [{"weight": 1, "capacity": 2, "kind": "semaphore"}] * 2,
    "writer": [{"weight": RW_CAPACITY, "capacity": RW_CAPACITY, "kind": "write"}],
}
shapes = pytest.mark.parametrize("full", SHAPES.values(), ids=SHAPES.keys())
"""Claims that together take all the room there is; the first one's shape also serves for those that wait."""


@shapes
def test_those_who_do_not_fit_wait_in_the_order_of_their_arrival(store, full):
    held = [take(store, **shape) for shape in full]
    first, second = queue(store, **full[0]), queue(store, **full[0])

    store.release(held[0][0], 2.0)

    assert isinstance(store.acquire(second, False, 2.0), Queued)
    assert isinstance(store.acquire(first, False, 2.0), Granted)


@shapes
def test_a_try_that_does_not_fit_leaves_nothing(store, full):
    for shape in full:
        take(store, **shape)
    before = [(info.claim_id, info.state) for info in store.inspect("a", 2.0).claims]

    answer = store.acquire(claim(wait=False, **full[0]), True, 2.0)

    assert isinstance(answer, Busy)
    assert answer.holder is not None
    assert [(info.claim_id, info.state) for info in store.inspect("a", 2.0).claims] == before


def test_a_replayed_acquire_finds_the_same_fence_and_extends(store, clock):
    one, fence = take(store, ttl=10)
    clock.time += 6

    again = store.acquire(one, True, 2.0)
    assert (again.fence, again.basis) == (fence, pytest.approx(clock.time))
    clock.time += 9.9
    assert renew(store, one, fence).state == "HELD"


def test_a_replayed_acquire_takes_no_second_place(store):
    one, fence = take(store, capacity=3, kind="semaphore")

    assert store.acquire(one, True, 2.0).fence == fence

    assert states(store) == ["HELD"]


@shapes
def test_a_lapsed_claim_is_gone_even_if_nobody_came(store, clock, full):
    held = [take(store, ttl=5, **shape) for shape in full]
    clock.time += 5

    for one, fence in held:
        assert renew(store, one, fence).state == "LOST"
        assert store.release(one, 2.0) == ABSENT
        assert store.acquire(one, False, 2.0) == Lapsed("absent")


def test_a_lapsed_claim_in_the_middle_is_removed_and_the_one_behind_gets_in(store, clock):
    shape = {"capacity": 2, "kind": "semaphore"}
    head, fence = take(store, ttl=60, **shape)
    middle, middle_fence = take(store, ttl=5, **shape)
    waiter = queue(store, **shape)
    clock.time += 4
    assert renew(store, waiter).state == "WAITING"
    clock.time += 1

    assert renew(store, middle, middle_fence).state == "LOST"
    assert isinstance(store.acquire(waiter, False, 2.0), Granted)
    assert renew(store, head, fence).state == "HELD"


def test_a_silent_waiter_loses_its_place_after_six_seconds(store, clock):
    take(store, ttl=60)
    silent, patient = queue(store), queue(store)
    clock.time += 5
    assert renew(store, patient).state == "WAITING"
    clock.time += 1

    assert renew(store, silent).state == "LOST"
    assert store.acquire(patient, False, 2.0).position == 1


def test_an_offer_is_a_wake_and_no_heartbeat_extends_it(store, clock):
    held, _ = take(store, ttl=60)
    offered, behind = queue(store), queue(store)
    store.release(held, 2.0)

    for _ in range(2):
        clock.time += 2.9
        assert renew(store, offered).state == "OFFERED"
        assert renew(store, behind).state == "WAITING"
    clock.time += 0.3
    assert renew(store, offered).state == "LOST"
    assert isinstance(store.acquire(behind, False, 2.0), Granted)


def test_a_hold_without_a_lease_is_reported_as_offered_and_not_extended(store, clock):
    one, fence = take(store, ttl=10)
    clock.time += 9

    assert renew(store, one).state == "OFFERED"
    clock.time += 1
    assert renew(store, one, fence).state == "LOST"


def test_a_heartbeat_with_another_fence_is_lost_and_changes_nothing(store, clock):
    one, fence = take(store, ttl=10)
    clock.time += 5

    assert renew(store, one, fence + 1).why == "fence"
    clock.time += 5
    assert renew(store, one, fence).state == "LOST"


def test_a_holder_with_a_short_ttl_does_not_inherit_the_waiters_deadline(store, clock):
    one, fence = take(store, ttl=1)
    clock.time += 1

    assert renew(store, one, fence).state == "LOST"


def test_only_the_next_in_line_is_told_when_to_ask_again(store, clock):
    take(store, ttl=30)
    first = store.acquire(claim(), True, 2.0)
    second = store.acquire(claim(), True, 2.0)

    assert first.ask_again_at == pytest.approx(clock.time + 30)
    assert second.ask_again_at is None


def test_a_release_wakes_every_reader_behind_a_writer_at_once(store, watch):
    writer, _ = take(store, weight=RW_CAPACITY, capacity=RW_CAPACITY, kind="write")
    woken = []
    readers = []
    for number in range(3):
        reader = claim(weight=1, capacity=RW_CAPACITY, kind="read")
        answer = store.acquire(reader, True, 2.0)
        watch(reader, answer, lambda number=number: woken.append(number))
        readers.append(reader)
    assert woken == []

    store.release(writer, 2.0)

    assert sorted(woken) == [0, 1, 2]
    assert all(isinstance(store.acquire(reader, False, 2.0), Granted) for reader in readers)


def test_a_watch_begun_after_the_blocker_left_wakes_at_once(store, watch):
    held, _ = take(store)
    waiter = claim()
    answer = store.acquire(waiter, True, 2.0)
    store.release(held, 2.0)
    woken = threading.Event()

    watch(waiter, answer, woken.set)

    assert woken.is_set()


def test_a_closed_watch_wakes_nobody(store):
    held, _ = take(store)
    waiter = claim()
    answer = store.acquire(waiter, True, 2.0)
    woken = threading.Event()
    store.watch("a", answer.blockers, woken.set, waiter).close()

    store.release(held, 2.0)

    assert not woken.is_set()


def test_a_wake_that_raises_does_not_fail_the_release(store, watch):
    held, _ = take(store)
    waiter = claim()
    answer = store.acquire(waiter, True, 2.0)
    watch(waiter, answer, lambda: 1 / 0)

    assert store.release(held, 2.0) == RELEASED


def test_a_stale_release_touches_nobody(store):
    old, _ = take(store)
    store.release(old, 2.0)
    new, fence = take(store)

    assert store.release(old, 2.0) == ABSENT
    assert store.emergency_release(old, 2.0) == ABSENT
    assert renew(store, new, fence).state == "HELD"


def test_min_hold_keeps_a_released_claim_blocking_to_its_end(store, clock):
    one, fence = take(store, ttl=5, min_hold=20)
    clock.time += 1
    assert store.release(one, 2.0) == RELEASED
    waiter = claim()

    answer = store.acquire(waiter, True, 2.0)

    assert states(store) == ["LINGERING", "WAITING"]
    assert answer.ask_again_at == pytest.approx(clock.time + 19)
    assert renew(store, one, fence).state == "LOST"
    assert store.acquire(one, True, 2.0) == Lapsed("lingering")
    for _ in range(4):
        clock.time += 4.75
        store.renew([(waiter, None)], 2.0)
    assert isinstance(store.acquire(waiter, False, 2.0), Granted)


def test_min_hold_outlives_a_silent_holder(store, clock):
    take(store, ttl=5, min_hold=20)
    clock.time += 19

    assert isinstance(store.acquire(claim(wait=False), True, 2.0), Busy)
    clock.time += 1
    take(store)


def test_lock_delay_follows_an_ungraceful_end_and_not_a_release(store, clock):
    graceful, _ = take(store, ttl=60, lock_delay=7)
    store.release(graceful, 2.0)
    lost, _ = take(store, ttl=60, lock_delay=7)
    clock.time += 1
    store.release(lost, 2.0, how="ungraceful")

    clock.time += 6.9
    assert isinstance(store.acquire(claim(wait=False), True, 2.0), Busy)
    clock.time += 0.2
    take(store)


def test_max_hold_ends_a_hold_that_is_renewed_for_ever(store, clock):
    one, fence = take(store, ttl=5, max_hold=12)
    for _ in range(3):
        clock.time += 3
        assert renew(store, one, fence).state == "HELD"
    clock.time += 3

    assert renew(store, one, fence).state == "LOST"


def test_a_process_bound_claim_lapses_by_max_hold_alone(store, clock):
    one, fence = take(store, ttl=5, process_bound=True, max_hold=100)
    clock.time += 99
    assert renew(store, one, fence).state == "HELD"
    assert store.inspect("a", 2.0).claims[0].deadline is not None
    clock.time += 1

    assert renew(store, one, fence).state == "LOST"


def test_an_evicted_holder_is_lost_at_once_and_blocks_until_its_deadline(store, clock):
    one, fence = take(store, ttl=10)
    clock.time += 4

    evicted = store.evict("a", claim_id(one.token), 2.0)

    assert evicted.outcome == "MARKED"
    assert evicted.blocks_until == pytest.approx(clock.wall() + 6, abs=0.01)
    assert renew(store, one, fence).why == "evicted"
    assert store.acquire(one, True, 2.0) == Lapsed("evicted")
    clock.time += 5.9
    assert isinstance(store.acquire(claim(wait=False), True, 2.0), Busy)
    clock.time += 0.2
    take(store)


def test_an_evicted_process_bound_claim_blocks_for_its_ttl_from_the_last_renewal(store, clock):
    one, fence = take(store, ttl=10, process_bound=True)
    clock.time += 50
    renew(store, one, fence)
    clock.time += 4

    evicted = store.evict("a", claim_id(one.token), 2.0)

    assert evicted.blocks_until == pytest.approx(clock.wall() + 6, abs=0.01)


def test_an_evicted_holder_that_lets_go_at_once_still_leaves_its_lock_delay(store, clock):
    one, _ = take(store, ttl=60, lock_delay=7)
    store.evict("a", claim_id(one.token), 2.0)

    assert store.release(one, 2.0) == RELEASED

    assert states(store) == ["LINGERING"]
    clock.time += 7
    take(store)


def test_evict_removes_a_waiter_and_wakes_it_to_find_out(store, watch):
    take(store)
    waiter = claim()
    answer = store.acquire(waiter, True, 2.0)
    woken = threading.Event()
    watch(waiter, answer, woken.set)

    assert store.evict("a", claim_id(waiter.token), 2.0).outcome == "REMOVED"

    assert woken.is_set()
    assert store.acquire(waiter, False, 2.0) == Lapsed("absent")
    assert store.evict("a", "0" * 12, 2.0).outcome == "ABSENT"


def test_evict_now_frees_the_lock_at_once(store):
    one, _ = take(store)

    assert store.evict("a", claim_id(one.token), 2.0, now=True).outcome == "REMOVED"

    take(store)


def test_another_capacity_waits_behind_and_is_told_the_one_in_force(store):
    held, _ = take(store, capacity=2)
    other = claim(capacity=3)
    answer = store.acquire(other, True, 2.0)
    assert (answer.capacity, len(answer.blockers)) == (2, 1)

    store.release(held, 2.0)

    assert isinstance(store.acquire(other, False, 2.0), Granted)


def test_resize_keeps_holders_grants_nothing_until_they_fit_and_drops_the_too_heavy(store):
    held = [take(store, capacity=3)[0] for _ in range(3)]
    heavy = queue(store, capacity=3, weight=3)
    light = queue(store, capacity=3)

    assert store.resize("a", 2, 2.0) == 5

    assert states(store) == ["HELD", "HELD", "HELD", "WAITING"]
    assert store.acquire(heavy, False, 2.0) == Lapsed("resized")
    store.release(held[0], 2.0)
    assert isinstance(store.acquire(light, False, 2.0), Queued)
    store.release(held[1], 2.0)
    assert isinstance(store.acquire(light, False, 2.0), Granted)


def test_a_growing_resize_wakes_those_who_now_fit(store, watch):
    take(store, capacity=1)
    waiter = claim(capacity=1)
    answer = store.acquire(waiter, True, 2.0)
    woken = threading.Event()
    watch(waiter, answer, woken.set)

    store.resize("a", 2, 2.0)

    assert woken.is_set()
    assert isinstance(store.acquire(waiter, False, 2.0), Granted)


def test_extend_lengthens_every_later_renewal_and_nothing_shortens_it(store, clock):
    one, fence = take(store, ttl=5)
    assert store.extend(one, fence, 50, 2.0).state == "HELD"
    assert store.extend(one, fence, 1, 2.0).state == "HELD"
    again = store.acquire(one, True, 2.0)
    assert (again.fence, again.basis) == (fence, pytest.approx(clock.time))
    clock.time += 49

    assert renew(store, one, fence).state == "HELD"
    clock.time += 49
    assert renew(store, one, fence).state == "HELD"


def test_an_annotation_is_merged_and_comes_back_with_the_renewal(store):
    one, fence = take(store, note={"job": "x", "step": {"n": 1, "of": 3}})
    assert renew(store, one, fence).requests is None

    assert store.annotate("a", claim_id(one.token), {"ask_release": True, "step": {"n": 2}, "job": None}, 2.0)

    expected = {"ask_release": True, "step": {"n": 2, "of": 3}}
    assert renew(store, one, fence).requests == expected
    assert store.inspect("a", 2.0).claims[0].note == expected
    assert not store.annotate("a", "0" * 12, {"x": 1}, 2.0)


@pytest.mark.parametrize(
    "patch", [{"x": "y" * 5000}, {"x": object()}, {"x": float("nan")}], ids=["long", "no JSON", "NaN"]
)
def test_a_note_that_cannot_be_kept_is_refused(store, patch):
    one, _ = take(store)

    with pytest.raises(ConfigError):
        store.annotate("a", claim_id(one.token), patch, 2.0)
    with pytest.raises(ConfigError):
        store.acquire(claim(note=patch), True, 2.0)


def test_a_record_outlives_claims_and_changes_by_version(store):
    assert store.record("a", 2.0) is None
    first = store.put_record("a", {"last": 1}, 0, 2.0)
    second = store.put_record("a", {"last": 2}, first.version, 2.0)

    with pytest.raises(Conflict) as caught:
        store.put_record("a", {"last": 3}, first.version, 2.0)

    assert caught.value.current == second == store.record("a", 2.0)


def test_names_lists_what_has_claims(store, clock):
    for name in ("b", "a/b", "a"):
        take(store, name, ttl=5)
    assert store.names("", 2.0) == ["a", "a/b", "b"]
    assert store.names("a", 2.0) == ["a", "a/b"]
    clock.time += 5
    assert store.names("", 2.0) == []
