"""Rules of the memory store and the embedded store that no client can show, so that the kit has them not.

On a clock that the test owns, so nothing here sleeps.
"""

from __future__ import annotations

import threading

import pytest

from lockkit.errors import ConfigError
from lockkit.store.queue import RW_CAPACITY
from lockkit.store.spi import RELEASED, Granted, OpenOptions
from lockkit.testing.claims import claim, renew, states, take
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


def test_a_hold_without_a_lease_is_reported_as_offered_and_not_extended(store, clock):
    one, fence = take(store, ttl=10)
    clock.time += 9

    assert renew(store, one).state == "OFFERED"
    clock.time += 1
    assert renew(store, one, fence).state == "LOST"


def test_a_holder_with_a_short_ttl_does_not_inherit_the_waiters_deadline(store, clock):
    one, fence = take(store, ttl=1)
    clock.time += 1

    assert renew(store, one, fence).state == "LOST"


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
