"""Two threads that end one claim, or move and end it, at the same time; and what is forgotten on the way."""

from __future__ import annotations

import threading

import pytest

from lockkit.errors import BackendUnavailable, OutcomeUnknown
from lockkit.store.spi import RELEASED, Granted, OpenOptions, Refused, Unknown
from lockkit.testing.claims import BUDGET, claim, queue, renew, states, take
from lockkit.testing.processes import PATIENCE, installed
from lockkit.values.names import claim_id
from lockkit_etcd.backend import open_store
from lockkit_etcd.leases import EtcdLease
from lockkit_etcd.transport import Get, LeaseGone, Put
from support.etcd_transports import asked
from support.servers.etcd import EtcdServer
from support.servers.etcd_gateway import covered
from support.servers.started import started

pytestmark = pytest.mark.skipif(not installed("etcd"), reason="make servers")
TRIO = {"kind": "semaphore", "capacity": 3}


server = started(EtcdServer)


def lease_of(store, one):
    return store.store.entries[one.token].hold


def stored(server):
    return server.call("kv/range", covered("lockkit/")).get("kvs", [])


class Slow:
    """The answers to one thread's transactions are done, and then kept back until they are let go."""

    def __init__(self, store, monkeypatch, call):
        self.done, self.go = threading.Event(), threading.Event()
        transport, here = asked(store), threading.get_ident()
        real = transport.txn

        def txn(request, budget):
            answer = real(request, budget)
            if threading.get_ident() != here:
                self.done.set()
                self.go.wait(PATIENCE)
            return answer

        monkeypatch.setattr(transport, "txn", txn)
        self._thread = threading.Thread(target=call)
        self._thread.start()
        assert self.done.wait(PATIENCE)

    def finish(self):
        self.go.set()
        self._thread.join()


def test_two_releases_at_a_time_leave_the_lease_to_the_next_claim(stores, monkeypatch):
    store, other = stores
    one, _ = take(store)
    first = Slow(store, monkeypatch, lambda: store.release(one, BUDGET, how="ungraceful"))
    store.release(one, BUDGET)
    transport = asked(store)
    real = transport.txn

    def while_it_is_under_way(request, budget):
        answer = real(request, budget)
        first.finish()
        return answer

    monkeypatch.setattr(transport, "txn", while_it_is_under_way)
    next_, fence = take(store, "next")

    assert states(other, "next") == ["HELD"]
    assert renew(store, next_, fence).state == "HELD"


def test_an_abandon_beside_a_release_leaves_the_lease_to_the_next_claim(stores, monkeypatch):
    store, other = stores
    one, _ = take(store)
    slow = Slow(store, monkeypatch, lambda: store.abandon(one, BUDGET))
    store.release(one, BUDGET)
    take(store, "next")
    slow.finish()

    assert states(other, "next") == ["HELD"]


def test_an_extend_beside_a_release_gives_no_lease_back_twice(stores, monkeypatch):
    store, other = stores
    one, fence = take(store)
    slow = Slow(store, monkeypatch, lambda: store.extend(one, fence, 60, BUDGET))
    store.release(one, BUDGET)
    first, _ = take(store, "first")
    slow.finish()
    second, _ = take(store, "second")

    assert lease_of(store, first) is not lease_of(store, second)
    store.abandon(second, BUDGET)
    assert states(other, "first") == ["HELD"]


def test_a_heartbeat_beside_an_extend_does_not_give_the_new_lease_away(stores, monkeypatch):
    store, other = stores
    one, fence = take(store)
    slow = Slow(store, monkeypatch, lambda: store.extend(one, fence, 60, BUDGET))
    assert renew(store, one, fence).state == "HELD"
    slow.finish()
    next_, _ = take(store, "next", ttl=60)

    assert lease_of(store, next_) is not lease_of(store, one)
    store.abandon(next_, BUDGET)
    assert states(other) == ["HELD"]


@pytest.mark.parametrize("how", ["heartbeat", "confirm"])
def test_a_lease_in_doubt_is_revoked_though_another_has_extended_the_claim(stores, monkeypatch, how):
    store, other = stores
    transport, sent = asked(store), []
    real = transport.txn

    def lost(request, budget):
        real(request, budget)
        sent.append(request)
        raise Unknown(OutcomeUnknown("the answer is lost"))

    one = claim()
    with monkeypatch.context() as patch:
        patch.setattr(transport, "txn", lost)
        with pytest.raises(Unknown):
            store.acquire(one, True, BUDGET)
    granted = store.acquire(one, True, BUDGET)
    assert isinstance(granted, Granted)
    assert other.extend(one, granted.fence, 60, BUDGET).state == "HELD"
    if how == "heartbeat":
        assert renew(store, one, granted.fence).state == "HELD"
    else:
        assert isinstance(store.acquire(one, False, BUDGET), Granted)

    assert store.abandon(one, BUDGET) == RELEASED

    with pytest.raises(LeaseGone):
        real(sent[0], BUDGET)
    assert states(other) == []


def test_a_holder_whose_own_extend_had_no_answer_goes_on_on_the_longer_lease(stores, monkeypatch):
    store, _ = stores
    one, fence = take(store)
    transport = asked(store)
    real = transport.txn

    def lost(request, budget):
        answer = real(request, budget)
        if request.when:
            raise Unknown(OutcomeUnknown("the answer is lost"))
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(transport, "txn", lost)
        with pytest.raises(Unknown):
            store.extend(one, fence, 60, BUDGET)

    assert renew(store, one, fence).state == "HELD"
    assert lease_of(store, one).length == 60


# -- an acquire of which one half was done


def standing_in_line(store, one):
    """Somebody of this client stood there a moment ago: who comes joins without a look."""
    store.store.crowds.waited_at[store.store.known(one.terms).queue.key] = float("inf")


def test_what_is_refused_when_the_claim_already_stands_in_the_queue_is_in_doubt(server, stores, monkeypatch):
    store, _ = stores
    one = claim()
    standing_in_line(store, one)
    transport, puts = asked(store), []
    real = transport.txn

    def only_the_first(request, budget):
        puts.extend(op for op in request.then if type(op) is Put)
        if len(puts) > 1:
            raise Refused(BackendUnavailable("no leader"))
        return real(request, budget)

    with monkeypatch.context() as patch:
        patch.setattr(transport, "txn", only_the_first)
        with pytest.raises(Unknown):
            store.acquire(one, True, BUDGET)

    store.abandon(one, BUDGET)
    assert stored(server) == []
    assert store.store.entries == {}


def test_so_is_what_joins_a_queue_that_a_stranger_has_spoiled_meanwhile(server, stores):
    store, other = stores
    one = claim(**TRIO)
    standing_in_line(store, one)
    strange = b"lockkit/default/q/a/strange"
    server.call("kv/put", {"key": strange, "value": b'{"min_reader":9}'})
    with pytest.raises(Unknown):
        store.acquire(one, True, BUDGET)
    with pytest.raises(Refused):
        store.acquire(one, True, BUDGET)
    server.call("kv/deleterange", {"key": strange})

    two, fence = take(store, **TRIO)
    assert [info.fence for info in other.inspect("a", BUDGET).claims][-1] == fence
    assert store.abandon(one, BUDGET) == RELEASED
    assert store.release(two, BUDGET) == RELEASED
    assert states(other) == []


@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize("terms", [{}, TRIO], ids=["mutex", "semaphore"])
def test_a_key_that_somebody_else_has_is_left_alone(server, stores, terms, wait):
    store, other = stores
    foreign, _ = take(other, **terms)
    key = other.store.entries[foreign.token].key
    one = claim(wait=wait, **terms)
    store.store.recycled_keys.give_back(store.store.known(one.terms).queue.key, key)

    for _ in range(2):
        store.acquire(one, True, BUDGET)
    store.release(one, BUDGET)

    _, found = asked(store).range(Get(key), BUDGET)
    assert found.kvs[0].modified == found.kvs[0].created
    assert other.release(foreign, BUDGET) == RELEASED


def test_a_turn_that_is_overtaken_for_ever_ends_with_its_budget(stores, monkeypatch):
    store, other = stores
    holder, _ = take(other)
    one = queue(store)
    other.release(holder, BUDGET)
    transport = asked(store)
    real = transport.txn

    def overtaken(request, budget):
        real_key = store.store.entries[one.token].key
        if any(type(op) is Put for op in request.then):
            (kv,) = transport.range(Get(real_key), BUDGET)[1].kvs
            server_put = Put(kv.key, kv.value, same_lease=True)
            real(request._replace(when=(), then=(server_put,), otherwise=()), BUDGET)
        return real(request, budget)

    monkeypatch.setattr(transport, "txn", overtaken)
    with pytest.raises(Refused, match="keep changing"):
        store.acquire(one, False, 0.3)


def test_a_close_beside_a_release_ends_well(server, monkeypatch):
    store = open_store(server.url(), OpenOptions())
    one, _ = take(store, "close")
    store.release(one, BUDGET)
    closed = []
    transport = asked(store)
    real, close = transport.revoke, transport.close

    def beside(lease, budget):
        store.store.leases.give_back(EtcdLease(1, 77, store.store.clock.now(), store.store.raft.known))
        real(lease, budget)

    monkeypatch.setattr(transport, "revoke", beside)
    monkeypatch.setattr(transport, "close", lambda: closed.append(True) or close())
    store.close()

    assert closed


# -- what comes late


def lapses_at_once(server, store, patch):
    """Have each lease be gone before it is used, the first time: as after a long sleep of this process."""
    transport, first = asked(store), []
    real = transport.grant

    def grant(lease, ttl, budget):
        granted = real(lease, ttl, budget)
        if not first:
            first.append(server.call("lease/revoke", {"ID": lease}))
        return granted

    patch.setattr(transport, "grant", grant)


def test_an_extend_that_slept_over_its_new_lease_takes_another(server, stores, monkeypatch):
    store, _ = stores
    one, fence = take(store)
    lapses_at_once(server, store, monkeypatch)

    assert store.extend(one, fence, 60, BUDGET).state == "HELD"
    assert renew(store, one, fence).state == "HELD"


def test_an_ungraceful_release_that_slept_over_its_lock_delay_has_it_block_on(server, stores, monkeypatch):
    store, other = stores
    one, _ = take(store, lock_delay=5)
    lapses_at_once(server, store, monkeypatch)

    assert store.release(one, BUDGET, how="ungraceful") == RELEASED
    assert states(other) == ["LINGERING"]


def test_an_emergency_release_that_blocks_on_needs_nothing_of_the_ordinary_connections(stores, monkeypatch):
    store, other = stores
    one, _ = take(store, lock_delay=5)

    def dead(*_):
        raise Unknown(OutcomeUnknown("the connection is dead"))

    for call in ("txn", "range", "grant", "revoke", "remaining"):
        monkeypatch.setattr(asked(store), call, dead)

    assert store.emergency_release(one, BUDGET, how="ungraceful") == RELEASED
    assert states(other) == ["LINGERING"]


def test_an_eviction_that_is_done_is_told_though_nobody_says_until_when_it_blocks(stores, monkeypatch):
    store, other = stores
    one, fence = take(store)

    def remaining(lease, budget):
        raise Unknown(OutcomeUnknown("no answer"))

    monkeypatch.setattr(asked(other), "remaining", remaining)
    evicted = other.evict("a", claim_id(one.token), BUDGET)

    assert evicted.outcome == "MARKED"
    assert renew(store, one, fence).state == "LOST"
