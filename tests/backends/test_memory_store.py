"""Behaviour of the memory store alone; the rules that it shares are in test_store_rules.py."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import lockkit
from lockkit.errors import ConfigError
from lockkit.store.spi import ABSENT, NO_EXTRAS, Busy, Granted, Lapsed, OpenOptions, Queued
from lockkit.testing.claims import claim, renew, states, take
from lockkit.testing.interrupts import Bomb, CtrlC
from lockkit.values.names import claim_id
from lockkit_memory import CAPABILITIES
from lockkit_memory.backend import MemoryBackend, open_store
from lockkit_memory.store import MemoryStore, Queue, Shared
from support.clocks import StillClock


@pytest.fixture
def clock():
    return StillClock()


@pytest.fixture
def store(clock):
    return MemoryBackend(MemoryStore(clock), OpenOptions(clock=clock))


def test_a_free_lock_is_granted_with_the_clock_as_basis(store, clock):
    answer = store.acquire(claim(), True, 2.0)

    assert answer == Granted(fence=1, basis=clock.time)


def test_fences_rise_over_release_and_over_an_empty_store(store):
    fences = []
    for name in ("a", "a", "b", "a"):
        one, fence = take(store, name)
        store.release(one, 2.0)
        fences.append(fence)

    assert fences == sorted(set(fences))
    assert store._store.queues == {}, "a released name must leave nothing behind"


@pytest.mark.parametrize("given_up", ["abandoned", "replayed and released"])
def test_a_late_copy_of_an_acquire_grants_nothing(store, given_up):
    one = claim()
    if given_up == "abandoned":
        assert store.abandon(one, 2.0) == ABSENT
    else:
        store.acquire(one, True, 2.0)
        store.acquire(one, True, 2.0)
        store.release(one, 2.0)

    assert store.acquire(one, True, 2.0) == Lapsed("late")
    assert states(store) == []


def test_stores_are_shared_by_label_and_namespace():
    one, _ = take(open_store("memory://test-label", OpenOptions()))

    assert isinstance(
        open_store("memory://test-label", OpenOptions()).acquire(claim(wait=False), True, 2.0), Busy
    )
    take(open_store("memory://other-label", OpenOptions()))
    take(open_store("memory://test-label", OpenOptions(namespace="other")))
    open_store("memory://test-label", OpenOptions()).release(one, 2.0)


def test_a_store_ends_with_its_last_user_and_its_fences_still_rise():
    first, second = (open_store("memory://ends", OpenOptions()) for _ in range(2))
    _, fence = take(first)
    first.put_record("a", {"last": "me"}, 0, 2.0)
    first.close()
    first.close()
    assert len(second.inspect("a", 2.0).claims) == 1, "somebody still has it open"
    second.close()

    third = open_store("memory://ends", OpenOptions())
    assert third.inspect("a", 2.0).claims == ()
    assert third.record("a", 2.0) is None
    assert take(third)[1] > fence
    third.close()


def test_a_client_that_closes_leaves_nothing_to_the_next(tmp_path):
    for _ in range(2):
        with lockkit.connect(f"memory://{tmp_path.name}", state_dir=str(tmp_path)) as client:
            lock = client.lock("a", pulseless=True, min_hold=60)
            lock.acquire(timeout=0).hand_over()
            assert client.lock("a").try_acquire() is None


def test_a_signal_handler_that_closes_the_last_user_of_a_store_that_is_being_opened_splits_no_store():
    shared, key = Shared(), ("a", "default", StillClock())
    shared.enter(key, "first")

    class Struck:
        """A user whose entry is interrupted by the end of the first user."""

        struck = False

        def __hash__(self):
            if not self.struck:
                self.struck = True
                shared.leave(key, "first")
            return 1

    store = shared.enter(key, Struck())
    assert shared.enter(key, "third") is store


@pytest.mark.parametrize("url", ["memory://x?ttl=3", "memory:///path", "memory:x", "memory://a#b"])
def test_a_url_with_more_than_a_label_is_refused(url):
    with pytest.raises(ConfigError):
        open_store(url, OpenOptions())


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_finds_an_empty_store_and_leaves_the_parents_alone(store):
    one, fence = take(store)
    store._store.mutex.acquire()  # as if another thread were in the middle of a call
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            emptied = store.release(one, 2.0) == ABSENT and not store.inspect("a", 2.0).claims
            take(store)
            code = 0 if emptied else 2
        finally:
            os._exit(code)
    store._store.mutex.release()

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert renew(store, one, fence).state == "HELD"


def test_a_call_that_a_signal_handler_ends_frees_the_mutex_at_once(store):
    one, fence = take(store)
    calls = {
        "renew": lambda: renew(store, one, fence),
        "watch": lambda: store.watch("a", [str(fence)], lambda: None, claim()).close(),
        "annotate": lambda: store.annotate("a", claim_id(one.token), {"reason": "x"}, 2.0),
        "evict": lambda: store.evict("a", "0" * 12, 2.0),
        "resize": lambda: store.resize("a", 1, 2.0),
    }
    for name, call in calls.items():
        count = Bomb(1 << 30, beside=("contextlib",))
        with count:
            call()
        for at in range(1, count.seen + 1):
            kept = None  # the error, which keeps the frames that it passed
            bomb = Bomb(at, beside=("contextlib",))
            try:
                with bomb:
                    call()
            except CtrlC as error:
                kept = error
            with ThreadPoolExecutor(1) as another:
                got = another.submit(store._store.mutex.acquire, timeout=0).result()
                if got:
                    another.submit(store._store.mutex.release).result()
            assert got, f"{name} still has the mutex after Ctrl-C at {bomb.where}"
            del kept


def test_threads_never_overlap_and_fences_rise_in_grant_order():
    store = open_store("memory://threads", OpenOptions())
    inside, overlaps, fences = [0], [0], []

    def work():
        for _ in range(40):
            one, ready = claim(), threading.Event()
            answer = store.acquire(one, True, 2.0)
            while isinstance(answer, Queued):
                watch = store.watch("a", answer.blockers, ready.set, one)
                assert ready.wait(30)
                ready.clear()
                watch.close()
                answer = store.acquire(one, False, 2.0)
            inside[0] += 1
            overlaps[0] += inside[0] > 1
            fences.append(answer.fence)
            inside[0] -= 1
            store.release(one, 2.0)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert overlaps == [0]
    assert len(fences) == 16 * 40
    assert fences == sorted(fences)


@pytest.mark.parametrize("before", [True, False], ids=["before the claim is there", "just after"])
def test_a_signal_handler_that_locks_in_the_middle_of_an_acquire_shares_the_queue_with_it(
    store, monkeypatch, before
):
    begin, struck, held = Queue.__init__, [], claim()

    def handler():
        if not struck:
            struck.append(True)
            one, _ = take(store) if before else (claim(), 0)
            store.release(one, 2.0)  # the last of its queue, for all it knows
            assert isinstance(store.acquire(held, True, 2.0), Granted if before else Queued)

    class Interrupted(dict):
        def __setitem__(self, token, row):
            if before:
                handler()
            super().__setitem__(token, row)
            handler()

    def interrupted(self, *args):
        begin(self, *args)
        self.rows = Interrupted()

    monkeypatch.setattr(Queue, "__init__", interrupted)
    answer = store.acquire(claim(), True, 2.0)

    assert isinstance(answer, Queued if before else Granted)
    assert sorted(states(store)) == ["HELD", "WAITING"]


def test_it_declares_what_it_is():
    assert CAPABILITIES.scope == "process"
    extras = open_store("memory:", OpenOptions()).extras
    assert extras._replace(namespaces=None, drains=None) == NO_EXTRAS._replace(at_once=True)
