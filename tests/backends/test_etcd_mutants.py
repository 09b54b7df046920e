"""Deliberate mistakes in the etcd store: each must be noticed by the check that is meant for it."""

from __future__ import annotations

import base64
import contextlib
import json
import select
import threading
import time
from unittest.mock import patch

import pytest

from lockkit.store.connections import Timed
from lockkit.store.spi import Busy, Granted, OpenOptions, Refused, Unknown
from lockkit.testing.claims import BUDGET, claim, queue, renew, states, take
from lockkit.testing.processes import PATIENCE, installed
from lockkit.values.names import claim_id
from lockkit_etcd import acquiring, failures, gateway, keys, operating
from lockkit_etcd.backend import open_store
from lockkit_etcd.gateway import Gateway
from lockkit_etcd.leases import EtcdLeases
from lockkit_etcd.store import Entry, EtcdStore
from lockkit_etcd.transport import Delete, Kept, Txn, WatchEnded
from support.etcd_transports import asked
from support.servers.etcd import EtcdServer
from support.servers.etcd_gateway import EtcdRefused
from support.servers.started import started

pytestmark = pytest.mark.skipif(not installed("etcd"), reason="make servers")


server = started(EtcdServer)


@pytest.fixture
def place(server):
    server.wipe()
    with (
        contextlib.closing(open_store(server.url(), OpenOptions())) as store,
        contextlib.closing(open_store(server.url(), OpenOptions())) as other,
    ):
        yield server, store, other


def lease_of(store, one):
    return store.store.entries[one.token].hold


# -- what must hold


def a_grant_on_an_old_lease_counts_from_its_basis(server, store, other):
    first, _ = take(store, ttl=30)
    basis = lease_of(store, first).basis
    store.release(first, BUDGET)
    time.sleep(0.05)
    second = claim(ttl=30)
    assert store.acquire(second, True, BUDGET).basis == basis


def a_copy_of_a_create_without_an_answer_is_refused_after_the_release(server, store, other):
    sent = []
    real = asked(store).txn

    def lost(request, budget):
        real(request, budget)
        sent.append(request)
        asked(store).txn = real
        raise Unknown(EtcdRefused(0, {}))

    one = claim()
    asked(store).txn = lost
    with pytest.raises(Unknown):
        store.acquire(one, True, BUDGET)
    assert isinstance(store.acquire(one, True, BUDGET), Granted)
    store.release(one, BUDGET)
    with contextlib.suppress(Exception):
        real(sent[0], BUDGET)
    assert states(other) == []


def an_eviction_leaves_the_lease_to_its_client(server, store, other):
    one, _ = take(store)
    lease = lease_of(store, one).id
    other.evict("a", claim_id(one.token), BUDGET, now=True)
    store.release(one, BUDGET)
    next_, fence = take(store, "b")
    assert lease_of(store, next_).id == lease
    assert renew(store, next_, fence).state == "HELD"


def an_evicted_holder_whose_watches_are_dead_is_told_by_its_heartbeat(server, store, other):
    one, fence = take(store)
    other.evict("a", claim_id(one.token), BUDGET)
    assert renew(store, one, fence).state == "LOST"


def of_a_large_batch_only_what_was_answered_is_held(server, store, other):
    held = [take(store, f"lock-{at}", ttl=60) for at in range(100)]
    gone = lease_of(store, held[-2][0]).id  # a heartbeat reads the newest claim itself
    server.call("lease/revoke", {"ID": gone})
    answers = store.renew(held, 5.0)
    assert answers[-2].state != "HELD"


def every_lease_of_a_large_batch_is_answered(server, store, other):
    """Also if the second half of the request arrives with the first answer, as on a busy machine."""

    def in_halves(self, packed, end):
        half = len(packed) // 2
        self._until(end)
        self._socket.sendall(packed[:half])
        select.select([self._socket], [], [], 1.0)
        self._socket.sendall(packed[half:])

    with patch.object(Timed, "send", in_halves):
        assert len(asked(store).keepalive(range(1, 3001), 10.0)) == 3000


def a_write_answered_with_no_space_leaves_nothing_once_it_is_given_up(server, store, other):
    real, one = asked(store).txn, claim()

    def crossing(request, budget):
        real(request, budget)
        raise failures.said(8, "etcdserver: mvcc: database space exceeded", "here")

    asked(store).txn = crossing
    try:
        store.acquire(one, True, BUDGET)
    except Unknown:
        asked(store).txn = real
        store.abandon(one, BUDGET)
    except Refused:  # then there is nothing to be given up
        asked(store).txn = real
    assert states(other) == []


def a_waiter_whose_wake_was_lost_is_offered_its_turn_by_a_poll(server, store, other):
    holder, _ = take(other)
    one = queue(store)
    assert renew(store, one).state == "WAITING"
    other.release(holder, BUDGET)
    assert renew(store, one).state == "OFFERED"


def a_try_behind_a_try_that_is_about_to_go_is_not_busy(server, store, other):
    take(other, capacity=9, weight=4, kind="semaphore")
    heavy = queue(other, capacity=9, weight=6, kind="semaphore")
    key = other.store.entries[heavy.token].key
    (kv,) = server.call("kv/range", {"key": key})["kvs"]
    value = json.loads(base64.b64decode(kv["value"])) | {"try": True}
    server.call("kv/put", {"key": key, "value": json.dumps(value).encode(), "ignore_lease": True})
    light = claim(wait=False, capacity=9, kind="semaphore")
    try:
        answer = store.acquire(light, True, 0.5)
    except Unknown:
        answer = None
    assert not isinstance(answer, Busy)


def a_waiter_whose_own_claim_is_gone_does_not_hold(server, store, other):
    holder, _ = take(other)
    one = queue(store)
    server.call("lease/revoke", {"ID": store.store.entries[one.token].wait.id})
    other.release(holder, BUDGET)
    assert not isinstance(store.acquire(one, False, BUDGET), Granted)
    assert states(other) == []


def whoever_came_meanwhile_keeps_a_permit_from_being_given_twice(server, store, other):
    take(other, kind="semaphore", capacity=2)
    real = asked(store).txn
    came = []

    def late(request, budget):
        if any(each.what == "MOD" for each in request.when) and not came:
            came.append(take(other, kind="semaphore", capacity=2))
        return real(request, budget)

    asked(store).txn = late
    assert not isinstance(store.acquire(claim(kind="semaphore", capacity=2), True, BUDGET), Granted)
    assert came
    asked(store).txn = real


def an_offer_is_not_kept_alive_by_a_heartbeat(server, store, other):
    holder, _ = take(other)
    one = queue(store)
    lease = store.store.entries[one.token].wait.id
    other.release(holder, BUDGET)
    renew(store, one)
    kept = []
    real = asked(store).keepalive
    asked(store).keepalive = lambda ids, budget: kept.extend(ids) or real(ids, budget)
    renew(store, one)
    assert lease not in kept


_heard_within = PATIENCE


def who_waits_hears_of_a_release_after_the_watch_was_cut(server, store, other):
    holder, _ = take(other)
    one = claim()
    answer = store.acquire(one, True, BUDGET)
    woken = threading.Event()
    watch = store.watch("a", answer.blockers, woken.set, one)
    (shared_watch,) = (each for some in store._watches._shared_watches.values() for each in some)
    shared_watch._stream.close()
    other.release(holder, BUDGET)
    shared_watch._heard(WatchEnded("cut"), shared_watch._turn)
    assert woken.wait(_heard_within)
    watch.close()


# -- the mistakes


def validity_from_now(patch):
    real = acquiring._granted
    patch.setattr(
        acquiring,
        "_granted",
        lambda store, *rest: real(store, *rest)._replace(basis=store.clock.now()),
    )


def recycled_after_an_unknown(patch):
    real = EtcdStore.txn

    def txn(self, request, end, *leases, **over):
        try:
            return (yield from real(self, request, end, *leases, **over))
        finally:
            for lease in leases:
                if lease is not None:
                    lease.doubtful = False

    patch.setattr(EtcdStore, "txn", txn)


def evict_by_revoke(patch):
    real = operating.evict

    def evict(store, name, claim_id, budget, *, at_once, waiting=False):
        queue = keys.queue(store.namespace, name)
        _, found = yield from store.queue(queue, time.monotonic() + budget)
        row = next(each for each in found if each.id == claim_id)
        answer = yield from real(store, name, claim_id, budget, at_once=at_once)
        yield from store.transport.revoke(row.lease, time.monotonic() + budget)
        return answer

    patch.setattr(operating, "evict", evict)


def evict_by_watch_alone(patch):
    patch.setattr(operating, "_note", lambda store, row, said: Delete(b"lockkit/default/none"))


def silence_taken_for_an_answer(patch):
    real = Gateway.keepalive

    def keepalive(self, leases, end):
        # As many as are answered where the connection is to stay.
        kept = yield from real(self, leases[:57], end)
        one = next(iter(kept.values()))
        return {lease: kept.get(lease) or Kept(60, one.member, one.term, one.sent) for lease in leases}

    patch.setattr(Gateway, "keepalive", keepalive)


def batches_on_a_persistent_connection(monkeypatch):
    monkeypatch.setattr(gateway, "_WHOLE", b"")


def no_recheck_of_the_own_claim(patch):
    real = EtcdStore.txn

    def txn(self, request, end, *leases, **over):
        if any(each.what == "CREATE" for each in request.when):
            request = request._replace(when=())
        return real(self, request, end, *leases, **over)

    patch.setattr(EtcdStore, "txn", txn)


def look_and_then_enter(patch):
    real = EtcdStore.txn

    def txn(self, request, end, *leases, **over):
        if request.when and request.when[0].what == "MOD" and request.when[0].end:
            request = Txn((), request.then, request.otherwise)
        return real(self, request, end, *leases, **over)

    patch.setattr(EtcdStore, "txn", txn)


def offers_kept_alive(patch):
    from lockkit_etcd import renewing

    def to_keep(store, holding, waiting):
        return [entry.wait for _, entry in waiting] + [entry.hold for _, entry in holding]

    patch.setattr(renewing, "_to_keep", to_keep)


def no_look_after_a_cut(patch):
    from lockkit_etcd.watching import _SharedWatch

    patch.setattr(_SharedWatch, "_wake", lambda self, watches: None)


def no_space_is_a_refusal(monkeypatch):
    """A write that was refused for space counts as not done."""
    full = (8, "database space exceeded")
    monkeypatch.setitem(failures._TABLE, full, failures._TABLE[full]._replace(kind=Refused))


def a_poll_looks_for_its_own_claim_alone(monkeypatch):
    """A waiter's poll does not look whether those in its way still stand."""
    real = Entry.saw

    def saw(self, found, place):
        chosen = real(self, found, place)
        self.seen = found[place].modified, {}
        return chosen

    monkeypatch.setattr(Entry, "saw", saw)


def tries_are_in_the_way_of_tries(monkeypatch):
    """A try is told that it is busy because another stands in the queue for a moment."""
    monkeypatch.setattr(acquiring, "_in_the_way", lambda queue, place: True)


MUTANTS = {
    no_space_is_a_refusal: a_write_answered_with_no_space_leaves_nothing_once_it_is_given_up,
    a_poll_looks_for_its_own_claim_alone: a_waiter_whose_wake_was_lost_is_offered_its_turn_by_a_poll,
    tries_are_in_the_way_of_tries: a_try_behind_a_try_that_is_about_to_go_is_not_busy,
    validity_from_now: a_grant_on_an_old_lease_counts_from_its_basis,
    recycled_after_an_unknown: a_copy_of_a_create_without_an_answer_is_refused_after_the_release,
    evict_by_revoke: an_eviction_leaves_the_lease_to_its_client,
    evict_by_watch_alone: an_evicted_holder_whose_watches_are_dead_is_told_by_its_heartbeat,
    silence_taken_for_an_answer: of_a_large_batch_only_what_was_answered_is_held,
    batches_on_a_persistent_connection: every_lease_of_a_large_batch_is_answered,
    no_recheck_of_the_own_claim: a_waiter_whose_own_claim_is_gone_does_not_hold,
    look_and_then_enter: whoever_came_meanwhile_keeps_a_permit_from_being_given_twice,
    offers_kept_alive: an_offer_is_not_kept_alive_by_a_heartbeat,
    no_look_after_a_cut: who_waits_hears_of_a_release_after_the_watch_was_cut,
}


@pytest.mark.parametrize("check", MUTANTS.values(), ids=lambda check: check.__name__)
def test_without_the_mistake_it_holds(check, place):
    check(*place)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_the_mistake_is_noticed(mutant, place, monkeypatch):
    mutant(monkeypatch)
    monkeypatch.setitem(globals(), "_heard_within", 3.0)  # it waits in vain
    with pytest.raises(AssertionError):
        MUTANTS[mutant](*place)


def test_every_keepalive_is_weighed(place, monkeypatch):
    """If an answer does not count, that lease keeps its basis, and the claim moves to another lease."""
    _, store, _ = place
    one, fence = take(store)
    monkeypatch.setattr(EtcdLeases, "counts", staticmethod(lambda *_: False))
    for ask in (lambda: renew(store, one, fence), lambda: store.acquire(one, False, BUDGET)):
        lease = lease_of(store, one)
        basis = lease.basis
        answer = ask()
        assert lease_of(store, one) is not lease
        assert (lease.basis, answer.basis) == (basis, lease_of(store, one).basis)
