"""A client's claims on a name reuse one key in turn, so a name does not become slower with every use."""

from __future__ import annotations

import base64
import contextlib
import threading

import pytest

from lockkit.store.spi import Granted, Queued, Unknown
from lockkit.testing.claims import BUDGET, claim, queue, renew, states, take
from lockkit.testing.processes import PATIENCE, installed, until
from lockkit.values.names import claim_id
from lockkit_etcd.keys import RecycledKeys
from lockkit_etcd.store import EtcdStore
from lockkit_etcd.transport import Delete, Txn
from lockkit_etcd.watching import _SharedWatch
from support.etcd_transports import asked
from support.servers.etcd import EtcdServer
from support.servers.etcd_gateway import EtcdRefused, covered
from support.servers.started import started

pytestmark = pytest.mark.skipif(not installed("etcd"), reason="make servers")
PAIR = {"kind": "semaphore", "capacity": 2}


server = started(EtcdServer)


def key_of(store, one):
    return store.store.entries[one.token].key


def test_the_next_claim_has_the_key_of_the_one_before(stores):
    store, _ = stores
    keys = set()
    for _ in range(20):
        one, _ = take(store)
        keys.add(key_of(store, one))
        store.release(one, BUDGET)

    assert len(keys) == 1


def test_so_has_the_next_that_waits_and_the_next_that_is_refused(stores):
    store, other = stores
    holder, _ = take(other)
    keys = set()
    for wait in (True, False) * 5:
        one = claim(wait=wait)
        store.acquire(one, True, BUDGET)
        if wait:
            keys.add(key_of(store, one))
            store.release(one, BUDGET)

    assert len(keys) == 1
    other.release(holder, BUDGET)
    assert states(store) == []


def test_two_claims_at_a_time_have_two(stores):
    store, _ = stores
    both = [take(store, **PAIR)[0] for _ in range(2)]

    assert len({key_of(store, one) for one in both}) == 2


def test_threads_are_never_given_the_same():
    recycled_keys = RecycledKeys("client")
    taken, gate = [], threading.Barrier(4)

    def take_some():
        gate.wait()
        for _ in range(2_000):
            key = recycled_keys.take(b"q/")
            taken.append(key)
            assert taken.count(key) == 1
            taken.remove(key)
            recycled_keys.give_back(b"q/", key)

    threads = [threading.Thread(target=take_some) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert taken == []


def test_free_keys_are_remembered_of_a_limited_number_of_names():
    recycled_keys = RecycledKeys("client")
    for name in range(20_000):
        recycled_keys.give_back(b"%d/" % name, recycled_keys.take(b"%d/" % name))

    assert len(recycled_keys._free) <= 16_384


def test_the_token_is_not_stored(server, stores):
    store, _ = stores
    one, fence = take(store, min_hold=1, note={"a": 1})
    assert store.annotate("a", claim_id(one.token), {"b": 2}, BUDGET)
    renew(store, one, fence)

    stored = server.call("kv/range", covered("lockkit/"))["kvs"]
    texts = [base64.b64decode(kv[part]).decode() for kv in stored for part in ("key", "value")]
    assert claim_id(one.token) in "".join(texts)
    assert one.token not in "".join(texts)


# -- what must hold all the same


def a_late_copy_of_a_release_leaves_the_next_claim(store, other):
    sent = []
    real = asked(store).txn
    one, _ = take(store)
    asked(store).txn = lambda request, budget: sent.append(request) or real(request, budget)
    store.release(one, BUDGET)
    asked(store).txn = real
    take(store)

    real(sent[0], BUDGET)

    assert states(other) == ["HELD"]


def a_release_repeated_by_a_copy_leaves_the_next_claim(store, other):
    one, _ = take(store)
    store.release(one, BUDGET)
    take(store)

    other.release(one, BUDGET)
    store.release(one, BUDGET)

    assert states(other) == ["HELD"]


def what_blocks_on_is_not_overwritten(store, other):
    first, _ = take(store, min_hold=30, **PAIR)
    store.release(first, BUDGET)
    second, _ = take(store, min_hold=30, **PAIR)
    store.release(second, BUDGET)

    assert states(other) == ["LINGERING", "LINGERING"]


def what_lingers_is_not_overwritten(store, other):
    first, _ = take(store, lock_delay=30, **PAIR)
    store.release(first, BUDGET, how="ungraceful")
    second, _ = take(store, lock_delay=30, **PAIR)
    store.release(second, BUDGET, how="ungraceful")

    assert states(other) == ["LINGERING", "LINGERING"]


def a_create_without_an_answer_is_never_taken_for_the_next_claim(store, other):
    held, _ = take(other)
    sent = []
    real = asked(store).txn

    def lost(request, budget):
        sent.append(request)
        raise Unknown(EtcdRefused(0, {}))

    one = claim()
    # The claim joins the queue without a look at it first.
    store.store.crowds.waited_at[store.store.known(one.terms).queue.key] = float("inf")
    asked(store).txn = lost
    with pytest.raises(Unknown):
        store.acquire(one, True, BUDGET)
    asked(store).txn = real
    store.abandon(one, BUDGET)
    next_ = queue(store)
    with contextlib.suppress(Exception):
        real(sent[0], BUDGET)
    other.release(held, BUDGET)

    assert isinstance(store.acquire(next_, False, BUDGET), Granted)
    assert states(other) == ["HELD"]


def who_waits_behind_a_key_hears_that_its_claim_has_gone_though_another_has_it(store, other):
    first, _ = take(store)
    waiter = claim()
    answer = other.acquire(waiter, True, BUDGET)
    assert isinstance(answer, Queued)
    store.release(first, BUDGET)
    again = queue(store)
    woken = threading.Event()
    watch = other.watch("a", answer.blockers, woken.set, waiter)
    try:
        assert woken.wait(PATIENCE)
        assert states(other) == ["OFFERED", "WAITING"]
    finally:
        watch.close()
        store.release(again, BUDGET)


def a_dead_watch_is_noticed_though_another_claim_has_the_key(store, other):
    first, _ = take(store)
    waiter = claim()
    answer = other.acquire(waiter, True, BUDGET)
    watch = other.watch("a", answer.blockers, lambda: None, waiter)
    try:
        (shared_watch,) = other._watches._shared_watches[store.store.known(first.terms).queue.key]
        heard, shared_watch._heard = shared_watch._heard, lambda news, turn: None
        shared_watch.open()
        until(lambda: shared_watch._stream is not None, "it watches")
        store.release(first, BUDGET)
        queue(store)
        renew(other, waiter)
        behind = shared_watch._behind
        shared_watch._heard = heard
        assert behind is not None
    finally:
        watch.close()


CHECKS = [
    a_late_copy_of_a_release_leaves_the_next_claim,
    a_release_repeated_by_a_copy_leaves_the_next_claim,
    what_blocks_on_is_not_overwritten,
    what_lingers_is_not_overwritten,
    a_create_without_an_answer_is_never_taken_for_the_next_claim,
    who_waits_behind_a_key_hears_that_its_claim_has_gone_though_another_has_it,
    a_dead_watch_is_noticed_though_another_claim_has_the_key,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_it_holds(check, stores):
    check(*stores)


# -- deliberate mistakes


def delete_by_key(patch):
    real = EtcdStore.txn

    def txn(self, request, end, *leases, **over):
        if request.then and type(request.then[0]) is Delete:
            request = Txn((), request.then)
        return real(self, request, end, *leases, **over)

    patch.setattr(EtcdStore, "txn", txn)


def always_given_back(patch):
    def over(self, entry, *leases):
        self.entries.pop(entry.claim.token, None)
        self.recycled_keys.give_back(entry.packed_terms.queue.key, entry.key)

    patch.setattr(EtcdStore, "over", over)


def known_by_the_key_alone(patch):
    def look(self, standing, real=_SharedWatch.look):
        now = {key: fence for watch in self.waiters for key, fence in watch.needed}
        real(self, {(key, now.get(key, fence)) for key, fence in standing})

    patch.setattr(_SharedWatch, "look", look)


@pytest.mark.parametrize(
    "mutant,check",
    [
        (delete_by_key, a_late_copy_of_a_release_leaves_the_next_claim),
        (always_given_back, what_blocks_on_is_not_overwritten),
        (known_by_the_key_alone, a_dead_watch_is_noticed_though_another_claim_has_the_key),
    ],
)
def test_the_mistake_is_noticed(mutant, check, stores, monkeypatch):
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        check(*stores)
