"""Parts that only the etcd store has: notes, two leases for a claim, batches, and its findings."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time

import pytest

import lockkit
from lockkit.errors import BackendUnavailable
from lockkit.store.queue import RW_CAPACITY
from lockkit.store.spi import RELEASED, Granted, Lapsed, OpenOptions, Queued, Refused, Unknown
from lockkit.testing.children import in_child
from lockkit.testing.claims import BUDGET, claim, queue, renew, states, take
from lockkit.testing.processes import installed, until
from lockkit.values.names import claim_id
from lockkit_etcd import cluster, operating
from lockkit_etcd.backend import open_store
from lockkit_etcd.gateway import Gateway, _Member
from support.servers.etcd import EtcdServer
from support.servers.etcd_gateway import covered
from support.servers.started import started

pytestmark = pytest.mark.skipif(not installed("etcd"), reason="make servers")


server = started(EtcdServer)


@pytest.fixture(autouse=True)
def empty(server):
    server.wipe()


@contextlib.contextmanager
def opened(url):
    with contextlib.closing(open_store(url, OpenOptions())) as store:
        yield store


@pytest.fixture
def store(server):
    with opened(server.url()) as store:
        yield store


@pytest.fixture
def other(server):
    with opened(server.url()) as store:
        yield store


def keys(server, prefix="lockkit/default/"):
    kvs = server.call("kv/range", {**covered(prefix), "keys_only": True}).get("kvs", [])
    return len(kvs)


def living(server):
    return set(map(int, server.leases()))


# -- wait


def test_a_waiter_keeps_its_stored_value_only_if_somebody_has_changed_it_and_holds_with_the_change(
    store, other
):
    one, _ = take(store)
    two = queue(other)
    entry = other.store.entry(two)
    assert entry.waiting.stored == b""
    assert entry.waiting.changed is None
    assert store.annotate("a", claim_id(two.token), {"x": 1}, BUDGET)
    other.acquire(two, False, BUDGET)
    assert entry.waiting.changed["note"] == {"x": 1}
    store.release(one, BUDGET)
    assert isinstance(other.acquire(two, False, BUDGET), Granted)
    assert entry.waiting is None
    (info,) = store.inspect("a", BUDGET).claims
    assert (info.state, info.note) == ("HELD", {"x": 1})


def test_waiters_that_see_the_same_holder_share_one_fact_until_the_holder_changes(store, other):
    one, _ = take(store)
    first, second = (other.acquire(claim(), True, BUDGET) for _ in range(2))
    assert first.holder is second.holder
    assert store.annotate("a", claim_id(one.token), {"x": 1}, BUDGET)
    third = other.acquire(claim(), True, BUDGET)
    assert third.holder.note == {"x": 1}


# -- evict


def test_an_evicted_holder_is_told_by_its_next_heartbeat_and_nobody_is_granted_before(store, other, server):
    one, fence = take(store, ttl=30)
    waiter = queue(other)
    assert renew(store, one, fence).state == "HELD"
    answer = other.evict("a", claim_id(one.token), BUDGET)
    assert answer.outcome == "MARKED"
    assert 28 < answer.blocks_until - time.time() < 32
    assert isinstance(other.acquire(waiter, False, BUDGET), Queued)
    lost = renew(store, one, fence)
    assert (lost.state, lost.why) == ("LOST", "evicted")
    assert isinstance(other.acquire(waiter, False, BUDGET), Queued)
    store.release(one, BUDGET, how="ungraceful")
    assert isinstance(other.acquire(waiter, False, BUDGET), Granted)
    assert keys(server, "lockkit/default/c/") == 0, "the note goes with the claim"


def test_an_eviction_does_not_touch_the_lease(store, other, server):
    one, _ = take(store)
    lease = store.store.entries[one.token].hold.id
    other.evict("a", claim_id(one.token), BUDGET, now=True)
    assert lease in living(server)


def test_an_eviction_at_once_is_told_by_the_next_heartbeat_too(store, other):
    one, fence = take(store)
    assert other.evict("a", claim_id(one.token), BUDGET, now=True).outcome == "REMOVED"
    assert take(other)
    lost = renew(store, one, fence)
    assert (lost.state, lost.why) == ("LOST", "absent"), "as on stores that only find it gone"


def test_a_dead_holder_that_is_evicted_costs_its_ttl(store, other):
    one, _ = take(store, ttl=1)
    other.evict("a", claim_id(one.token), BUDGET)
    until(lambda: states(other) == [], "its lease ends")


def test_a_waiter_that_is_evicted_learns_why(store, other):
    take(other)
    one = queue(store)
    assert other.evict("a", claim_id(one.token), BUDGET).outcome == "REMOVED"
    assert renew(store, one).why == "evicted"
    assert store.acquire(one, False, BUDGET) == Lapsed("evicted")


def test_a_confirmation_of_an_evicted_hold_is_lapsed(store, other):
    one, _ = take(store)
    other.evict("a", claim_id(one.token), BUDGET)
    assert store.acquire(one, False, BUDGET) == Lapsed("evicted")
    assert states(other) == ["HELD"]


def test_evicting_twice_is_evicting_once(store, other):
    one, fence = take(store)
    for _ in range(2):
        assert other.evict("a", claim_id(one.token), BUDGET).outcome == "MARKED"
    assert renew(store, one, fence).state == "LOST"


def test_a_holder_whose_client_renews_and_does_not_hear_is_lost_by_the_clock(store, other, monkeypatch):
    """The keepalives get through and the read behind them does not: nothing is renewed by halves."""
    one, fence = take(store, ttl=30)
    monkeypatch.setattr(
        Gateway, "txn", lambda *_: (_ for _ in ()).throw(Refused(lockkit.BackendError("deaf")))
    )
    with pytest.raises(Refused):
        renew(store, one, fence)


# -- two leases


def test_a_dead_waiter_for_a_long_lock_costs_six_seconds(store, other):
    holder, _ = take(store, ttl=600)
    with opened(store.store.transport.where) as mortal:
        queue(mortal, ttl=600)
        mortal.store.leases._free.clear()
    behind = queue(other, ttl=600)
    store.release(holder, BUDGET)
    began = time.monotonic()
    while not isinstance(other.acquire(behind, False, BUDGET), Granted):
        renew(other, behind)
        assert time.monotonic() - began < 9.0
        time.sleep(0.3)
    assert other.store.entries[behind.token].hold.length == 600


def test_an_offer_is_not_kept_alive(store, server):
    holder, _ = take(store)
    one = queue(store)
    entry = store.store.entries[one.token]
    store.release(holder, BUDGET)
    assert renew(store, one).state == "OFFERED"
    before = server.call("lease/timetolive", {"ID": entry.wait.id})["TTL"]
    time.sleep(1.1)
    assert renew(store, one).state == "OFFERED"
    assert int(server.call("lease/timetolive", {"ID": entry.wait.id})["TTL"]) < int(before)


def test_extending_moves_the_claim_to_a_longer_lease(store, server):
    one, fence = take(store, ttl=2)
    old = store.store.entries[one.token].hold
    assert store.extend(one, fence, 60, BUDGET).state == "HELD"
    new = store.store.entries[one.token].hold
    assert (new.length, new is old) == (60, False)
    assert store.inspect("a", BUDGET).claims[0].ttl == 60
    assert renew(store, one, fence).state == "HELD"
    assert store.release(one, BUDGET) == RELEASED


def test_a_hold_that_another_client_extended_moves_back_to_a_lease_of_its_own_client(store, other):
    one, fence = take(store, ttl=2)
    assert other.extend(one, fence, 60, BUDGET).state == "HELD"
    moved = int(other.inspect("a", BUDGET).claims[0].deadline - time.time())
    assert moved > 55
    until(lambda: renew(store, one, fence).state == "HELD", "it has read the note")
    entry = store.store.entries[one.token]
    assert entry.hold.length == 60
    assert store.acquire(one, False, BUDGET).fence == fence
    assert store.release(one, BUDGET) == RELEASED


def test_a_lease_whose_basis_has_run_out_is_not_revived(store, server):
    """The server may extend it after a restart or an election; a client that counts itself has lost it."""
    one, fence = take(store, ttl=1)
    server.call("lease/grant", {"ID": "4711", "TTL": "60"})
    entry = store.store.entries[one.token]
    entry.hold.id = 4711
    until(lambda: entry.hold.over(time.clock_gettime(time.CLOCK_BOOTTIME)), "it runs out")
    assert renew(store, one, fence).state == "LOST"


def test_a_claim_that_was_deleted_by_hand_is_noticed_by_who_asks(store, server):
    one, _ = take(store)
    server.call("kv/deleterange", covered("lockkit/"))
    assert store.acquire(one, False, BUDGET) == Lapsed("absent")


# -- batches


def test_a_heartbeat_of_many_claims_is_a_few_requests(store, monkeypatch):
    held = [take(store, f"lock-{at}", ttl=60) for at in range(1200)]
    asked = []
    real = _Member.send
    monkeypatch.setattr(
        _Member, "send", lambda self, path, *rest: asked.append(path) or real(self, path, *rest)
    )
    assert {each.state for each in store.renew(held, 5.0)} == {"HELD"}
    assert sorted(asked) == [b"kv/txn"] + [b"lease/keepalive"] * 12


def test_a_batch_in_which_some_are_gone_tells_each_apart(store, server):
    held = [take(store, f"lock-{at}", ttl=60) for at in range(20)]
    for one, _ in held[::4]:
        server.call("lease/revoke", {"ID": store.store.entries[one.token].hold.id})
    answers = [each.state for each in store.renew(held, BUDGET)]
    assert answers == ["LOST" if at % 4 == 0 else "HELD" for at in range(20)]


def test_waiters_for_many_names_are_looked_after_in_one_read(store, monkeypatch):
    waiters = []
    for at in range(100):
        take(store, f"lock-{at}")
        waiters.append((queue(store, f"lock-{at}"), None))
    asked = []
    real = _Member.send
    monkeypatch.setattr(
        _Member, "send", lambda self, path, *rest: asked.append(path) or real(self, path, *rest)
    )
    assert {each.state for each in store.renew(waiters, 5.0)} == {"WAITING"}
    assert asked.count(b"kv/txn") == 2


# -- notes and looks


def test_what_was_asked_of_a_waiter_is_told_when_it_holds(store, other):
    holder, _ = take(other)
    one = queue(store)
    assert other.annotate("a", claim_id(one.token), {"ask_release": True}, BUDGET)
    other.release(holder, BUDGET)
    answer = store.acquire(one, False, BUDGET)
    assert isinstance(answer, Granted)
    assert renew(store, one, answer.fence).requests == {"ask_release": True}


def test_offers_are_worked_out_for_those_who_look(store, other):
    holder, _ = take(store, weight=RW_CAPACITY, capacity=RW_CAPACITY, kind="write")
    for _ in range(2):
        queue(store, capacity=RW_CAPACITY, kind="read")
    queue(store, weight=RW_CAPACITY, capacity=RW_CAPACITY, kind="write")
    assert states(other) == ["HELD", "WAITING", "WAITING", "WAITING"]
    store.release(holder, BUDGET)
    assert states(other) == ["OFFERED", "OFFERED", "WAITING"]


def test_the_names_of_more_claims_than_a_page_are_all_listed(store, monkeypatch):
    monkeypatch.setattr(operating, "_PAGE", 7)
    for at in range(30):
        take(store, f"lock/{at:02}")
        queue(store, f"lock/{at:02}")
    assert store.names("lock/", BUDGET) == [f"lock/{at:02}" for at in range(30)]
    assert store.names("lock/1", BUDGET) == [f"lock/1{at}" for at in range(10)]


def test_after_a_claim_that_may_be_offered_nobody_overtakes_who_holds_already(store):
    """The second of two offered permits answered first; the lock shrinks: the first is not granted."""
    terms = {"kind": "semaphore", "capacity": 2}
    both = [take(store, **terms)[0] for _ in range(2)]
    first, second = (queue(store, **terms) for _ in range(2))
    for one in both:
        store.release(one, BUDGET)
    assert isinstance(store.acquire(second, False, BUDGET), Granted)
    store.resize("a", 1, BUDGET)
    assert isinstance(store.acquire(first, False, BUDGET), Queued)
    assert isinstance(store.acquire(first, False, BUDGET), Queued)
    store.release(second, BUDGET)
    assert isinstance(store.acquire(first, False, BUDGET), Granted)


# -- processes


def test_a_child_has_neither_pool_nor_claims_and_says_no_goodbye(store, server):
    one, fence = take(store)
    before = living(server)

    def child():
        told = []
        for call in (
            lambda: store.acquire(claim("b"), True, BUDGET),
            lambda: store.renew([(one, fence)], BUDGET),
            lambda: store.release(one, BUDGET),
        ):
            try:
                call()
            except Refused:
                told.append("refused")
        store.close()
        return told

    assert in_child(child) == ["refused"] * 3
    assert living(server) == before
    assert renew(store, one, fence).state == "HELD"


def test_the_doctor_of_the_command_line_names_the_transport(server, tmp_path):
    tmp_path.chmod(0o700)
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "LOCKKIT_URL": server.url(),
        "LOCKKIT_STATE_DIR": str(tmp_path),
    }
    line = [sys.executable, "-m", "lockkit", "doctor"]
    done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"JSON gateway to {server.url()}" in done.stdout


def test_who_joins_a_line_that_its_client_has_just_seen_joins_at_once(store, monkeypatch):
    asked = []
    real = Gateway.txn
    monkeypatch.setattr(
        Gateway, "txn", lambda self, request, budget: asked.append(request) or real(self, request, budget)
    )
    holder, _ = take(store)
    first = queue(store)
    asked.clear()
    second = queue(store)
    assert len(asked) == 1
    store.release(holder, BUDGET)
    for one in (first, second):
        assert isinstance(store.acquire(one, False, BUDGET), Granted)
        store.release(one, BUDGET)
    assert len(asked) == 6


def test_a_heartbeat_with_time_for_one_batch_keeps_the_claims_that_come_first(store, monkeypatch):
    """The protocol names the most urgent first; claims that were left over come first the next time."""
    held = [take(store, f"lock-{at}", ttl=60) for at in range(9)]
    monkeypatch.setattr(cluster, "_BATCH", 3)
    monkeypatch.setattr(cluster, "_AT_ONCE", 1)
    real, asked = _Member.send, []

    def send(self, path, *rest):
        if path == b"lease/keepalive":
            asked.append(path)
            if len(asked) > 1:
                raise Unknown(BackendUnavailable("no time"))
        return real(self, path, *rest)

    monkeypatch.setattr(_Member, "send", send)

    assert [each.state for each in store.renew(held, 1.0)] == ["HELD"] * 3 + ["UNKNOWN"] * 6
    asked.clear()
    assert [each.state for each in store.renew(held[3:] + held[:3], 1.0)][:3] == ["HELD"] * 3
