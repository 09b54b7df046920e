"""The cost of many claims in one queue on etcd: tries that get in, concurrent looks, small polls."""

from __future__ import annotations

import base64
import contextlib
import functools
import gc
import json
import random
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

import lockkit
from lockkit.errors import OutcomeUnknown
from lockkit.store.spi import Busy, Granted, OpenOptions, Queued, Refused, Unknown
from lockkit.testing.claims import BUDGET, claim, queue, renew, states, take
from lockkit.testing.processes import installed, until
from lockkit_etcd import acquiring, looking, renewing
from lockkit_etcd.transport import Put
from support.etcd_transports import SCHEMES, asked, open_etcd
from support.servers.etcd import EtcdServer
from support.servers.started import started

pytestmark = pytest.mark.skipif(not installed("etcd"), reason="make servers")


server = started(EtcdServer)


@pytest.fixture(autouse=True)
def empty(server):
    server.wipe()


@pytest.fixture(params=SCHEMES)
def opened(server, request):
    """Opens stores over one of the transports."""
    with contextlib.ExitStack() as stack:

        def opened():
            url = request.param + server.url().removeprefix("etcd")
            return stack.enter_context(contextlib.closing(open_etcd(url, OpenOptions())))

        yield opened


@pytest.fixture
def patient(monkeypatch):
    """Waiters of which nobody speaks for as long as a test may take on a busy machine stay in the queue."""
    monkeypatch.setattr(acquiring, "_WAITING_LENGTH", 90)


def permit(wait=False, capacity=9, weight=1):
    return claim(wait=wait, capacity=capacity, weight=weight, kind="semaphore")


def before_each_write(store, meanwhile):
    """Have something happen between each look of a store and the write that it leads to."""
    transport = asked(store)
    real = transport.txn

    def txn(request, budget):
        if any(type(op) is Put for op in request.then):
            transport.txn = real
            try:
                meanwhile()
            finally:
                transport.txn = txn
        return real(request, budget)

    transport.txn = txn
    return real


# -- tries


def test_a_try_gets_in_where_others_come_and_go_all_the_time(opened):
    store, other = opened(), opened()
    take(other, capacity=9, kind="semaphore")

    def come_and_go():
        one, _ = take(other, capacity=9, kind="semaphore")
        other.release(one, BUDGET)

    before_each_write(store, come_and_go)
    assert isinstance(store.acquire(permit(), True, BUDGET), Granted)
    assert states(other) == ["HELD", "HELD"]


def test_a_try_that_was_overtaken_and_does_not_fit_any_more_is_busy_and_leaves_nothing(opened):
    store, other = opened(), opened()
    take(other, capacity=9, kind="semaphore")
    before_each_write(store, lambda: take(other, capacity=9, kind="semaphore"))
    taken = 8
    for _ in range(3):
        answer = store.acquire(permit(), True, BUDGET)
        if isinstance(answer, Busy):
            break
    assert isinstance(answer, Busy)
    assert answer.capacity == 9
    found = states(other)
    assert "WAITING" not in found
    assert found.count("HELD") >= taken
    store.perform(store.store.leases.close())
    assert not store.store.entries.keys() - {
        token for token, entry in store.store.entries.items() if entry.stage == "HELD"
    }


def test_a_try_that_stands_in_the_queue_for_a_moment_refuses_no_other(opened, server):
    """A heavy try does not fit and is about to go; a light one behind it is not told that it is busy."""
    light, other = opened(), opened()
    take(other, capacity=9, weight=4, kind="semaphore")
    heavy = queue(other, capacity=9, weight=6, kind="semaphore")
    key = other.store.entries[heavy.token].key
    (kv,) = server.call("kv/range", {"key": key})["kvs"]
    value = json.loads(base64.b64decode(kv["value"])) | {"try": True}
    server.call("kv/put", {"key": key, "value": json.dumps(value).encode(), "ignore_lease": True})
    with ThreadPoolExecutor() as pool:
        work = pool.submit(light.acquire, permit(), True, 10.0)
        until(lambda: len(states(other)) == 3, "it stands behind the other try")
        assert not work.done()
        other.abandon(heavy, BUDGET)
        assert isinstance(work.result(10.0), Granted)
    heavy = queue(other, capacity=9, weight=6, kind="semaphore")
    assert isinstance(light.acquire(permit(), True, BUDGET), Busy), "this one waits, and comes first"


# -- looks


def test_an_inspection_asks_for_the_leases_at_once(opened):
    """The look takes a few round trips, and not as many as there are claims."""
    store = opened()
    take(store, ttl=60)
    for _ in range(7):
        queue(store, ttl=60)
    real, together = asked(store).remaining, threading.Barrier(8)

    def remaining(lease, budget):
        together.wait(20.0)  # none goes on before all are under way
        return real(lease, budget)

    asked(store).remaining = remaining
    found = store.inspect("a", 10.0).claims
    assert [each.state for each in found] == ["HELD"] + ["WAITING"] * 7
    assert found[0].deadline - found[1].deadline > 30, "each has its own lease"


def test_an_inspection_shows_the_queue_though_no_lease_is_answered_for(opened):
    store = opened()
    take(store, ttl=60)
    queue(store, ttl=60)

    def remaining(lease, budget):
        raise Unknown(OutcomeUnknown("no answer"))

    asked(store).remaining = remaining
    assert [each.state for each in store.inspect("a", BUDGET).claims] == ["HELD", "WAITING"]


# -- looks at a long queue

KINDS = {"mutex": {}, "semaphore": {"capacity": 3, "kind": "semaphore"}}


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def kind(request):
    return request.param


def line_up(store, other, kind, length):
    """Queue ``length`` claims, a few of another client; returns the holders and this client's waiters."""
    holders = [take(other, ttl=60, **kind)[0] for _ in range(kind.get("capacity", 1))]
    waiters = []
    for at in range(length - len(holders)):
        one = queue(other if at % 10 == 9 else store, ttl=60, **kind)
        if at % 10 != 9:
            waiters.append(one)
    return holders, waiters


def test_a_claim_that_joins_a_long_queue_reads_a_few_claims_of_it(opened, kind):
    store, other = opened(), opened()
    line_up(store, other, kind, 80)
    one = claim(ttl=60, **kind)
    told = []
    assert claims_read(store, lambda: told.append(store.acquire(one, True, BUDGET))) <= 18
    (answer,) = told
    assert isinstance(answer, Queued)
    info = other.inspect("a", BUDGET)
    assert (answer.position, answer.holder.fence) == (80, info.claims[0].fence)
    ahead = [each.fence for each in info.claims[:80]]
    assert (
        sorted(int(each.rpartition("@")[2]) for each in answer.blockers) == ahead[-kind.get("capacity", 1) :]
    )
    assert renew(store, one).state == "WAITING"


def test_a_waiter_far_behind_that_asks_again_reads_one_claim_with_its_value(opened, kind):
    store, other = opened(), opened()
    _, waiters = line_up(store, other, kind, 80)
    told = []
    assert claims_read(store, lambda: told.append(store.acquire(waiters[-1], False, BUDGET))) == 1
    other.abandon(waiters[0], BUDGET)
    store.abandon(waiters[0], BUDGET)
    assert claims_read(store, lambda: told.append(store.acquire(waiters[-1], False, BUDGET))) == 1
    places = [each.fence for each in other.inspect("a", BUDGET).claims]
    assert [each.position for each in told][1] == places.index(store.store.entries[waiters[-1].token].fence)
    assert told[0].position == told[1].position + 1


def test_a_hand_off_in_a_long_queue_reads_what_is_ahead_and_no_more(opened, kind):
    """Each waiter in turn gets the lock, whatever stands behind it, and none reads the queue behind it."""
    store, other = opened(), opened()
    holders, waiters = line_up(store, other, kind, 80)
    holders = [(other, one) for one in holders]
    fences = []
    for one in waiters[:9]:  # the next is another client's
        where, first = holders.pop(0)
        where.release(first, BUDGET)
        told = []
        call = functools.partial(store.acquire, one, False, BUDGET)
        assert claims_read(store, lambda: told.append(call())) <= 2 + kind.get("capacity", 1)  # noqa: B023 (called at once)
        (answer,) = told
        assert isinstance(answer, Granted)
        fences.append(answer.fence)
        holders.append((store, one))
        (behind,) = [each for each in waiters if each is waiters[20]]
        assert isinstance(store.acquire(behind, False, BUDGET), Queued)
    assert fences == sorted(fences)


def test_a_waiter_waits_for_the_guard_of_a_claim_that_joined_a_long_queue_ahead_of_it(opened):
    """The guard that a claim with min_hold leaves is younger than the claims behind it; they still see it."""
    store, other = opened(), opened()
    line_up(store, other, {}, 60)
    guarded = queue(other, ttl=60, min_hold=30.0)
    last = queue(store, ttl=60)
    for one in other.inspect("a", BUDGET).claims[:60]:
        other.evict("a", one.claim_id, BUDGET, now=True)
    assert isinstance(other.acquire(guarded, False, BUDGET), Granted)
    other.release(guarded, BUDGET)
    assert isinstance(store.acquire(last, False, BUDGET), Queued), "the guard blocks until min_hold is over"


def test_a_waiter_waits_for_a_holder_behind_it_after_a_resize_of_a_long_queue(opened):
    """Offered, and not taken yet; a claim behind it holds; after the resize both together are too much."""
    store, other = opened(), opened()
    terms = {"capacity": 3, "kind": "semaphore"}
    first, _ = take(other, ttl=60, **terms)
    second, _ = take(other, ttl=60, weight=2, **terms)
    waiters = [queue(store if at else other, ttl=60, **terms) for at in range(50)]
    offered, holds = waiters[1], waiters[2]
    other.abandon(waiters[0], BUDGET)
    other.release(second, BUDGET)
    assert isinstance(store.acquire(holds, False, BUDGET), Granted)
    other.resize("a", 2, 10.0)
    assert isinstance(store.acquire(offered, False, BUDGET), Queued), (
        "a claim behind it holds, and both do not fit"
    )
    store.release(holds, BUDGET)
    assert isinstance(store.acquire(offered, False, BUDGET), Granted)
    other.release(first, BUDGET)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("seed", [1, 2, None])
def test_in_a_long_queue_each_waiter_is_told_what_a_whole_look_tells(opened, seed, monkeypatch):
    """Joins, ends, resizes and questions in any order, in a queue that counts as long from four claims on."""
    seed = random.randrange(2**32) if seed is None else seed
    print(f"seed {seed}")
    monkeypatch.setattr(looking, "LAST", 3)
    monkeypatch.setattr(looking, "_SHORT", 1)
    monkeypatch.setattr(acquiring, "LAST", 3)
    chance = random.Random(seed)
    store, other = opened(), opened()
    capacity, waiters, holders = 4, [], []
    for _ in range(120):
        act = chance.choice(
            ["join", "join", "join", "leave", "ask", "ask", "resize"][: 6 + (chance.random() < 0.1)]
        )
        if act == "join":
            where = chance.choice([store, store, other])
            one = permit(wait=True, capacity=capacity, weight=chance.choice([1, 1, 2, 3, capacity]))
        elif act == "ask" and waiters:
            where, one = waiters.pop(chance.randrange(len(waiters)))
        elif act == "leave" and holders + waiters:
            some = chance.choice([each for each in (holders, waiters) if each])
            where, one = some.pop(chance.randrange(len(some)))
            where.abandon(one, BUDGET)
            continue
        elif act == "resize":
            other.resize("a", capacity := chance.choice([3, 4, 5]), BUDGET)
            continue
        else:
            continue
        before = other.inspect("a", BUDGET).claims
        id_ = lockkit.values.names.claim_id(one.token)
        answer = where.acquire(one, act == "join", BUDGET)
        told = {info.claim_id: info for info in other.inspect("a", BUDGET).claims}
        if isinstance(answer, Queued):
            assert told[id_].state == "WAITING", (seed, act)
            assert answer.position == told[id_].position, (seed, act)
            assert answer.holder.claim_id == next(iter(told)), (seed, act)
            standing = {str(each.fence) for each in told.values()}
            assert {each.rpartition("@")[2] for each in answer.blockers} <= standing, (seed, act)
            assert answer.blockers, (seed, act)
            waiters.append((where, one))
        elif isinstance(answer, Granted):
            assert told[id_].state == "HELD", (seed, act)
            assert act == "join" or next(each for each in before if each.claim_id == id_).state == "OFFERED"
            holders.append((where, one))
        else:
            assert id_ not in told, (seed, act)


def test_a_long_queue_that_is_found_empty_is_forgotten():
    """As after an eviction of the claim that asks, when all others have gone before."""
    ends = looking.Ends()
    ends.saw(b"q", [SimpleNamespace(fence=fence, guard=False, value={}) for fence in range(1, 30)])
    assert ends.unguarded(b"q", 20)
    ends.saw(b"q", [])
    assert not ends.unguarded(b"q", 20)


# -- what a waiter keeps


def test_a_waiter_in_a_crowd_of_its_client_keeps_little_memory_and_one_lease(opened, server):
    """The lease on which it will hold comes when its turn does, from the waiter before it."""
    store, count = opened(), 100
    holder, _ = take(store, ttl=60)
    for _ in range(40):
        queue(store, ttl=60)
    waiters, before = [claim(ttl=60) for _ in range(count)], len(server.leases())
    gc.collect()
    tracemalloc.start()
    try:
        for one in waiters:
            assert isinstance(store.acquire(one, True, BUDGET), Queued)
        gc.collect()
        kept = tracemalloc.get_traced_memory()[0] / count
    finally:
        tracemalloc.stop()
    assert kept < 1400, "bytes"
    assert len(server.leases()) == before + count
    for one in store.inspect("a", 10.0).claims[1:41]:
        store.evict("a", one.claim_id, BUDGET, now=True)
    before, granted = len(server.leases()), []
    for one in waiters[:20]:
        assert store.release(holder, BUDGET) == "RELEASED"
        answer = store.acquire(one, False, BUDGET)
        assert isinstance(answer, Granted)
        granted.append(answer.fence)
        holder = one
    assert granted == sorted(granted)
    assert len(server.leases()) <= before + 1


def test_a_permit_that_is_free_is_held_at_once_however_many_the_client_holds(opened):
    store = opened()
    for _ in range(30):
        one = permit(wait=True, capacity=31)
        assert isinstance(store.acquire(one, True, BUDGET), Granted)
    assert isinstance(store.acquire(permit(wait=True, capacity=31), True, BUDGET), Granted)
    assert isinstance(store.acquire(permit(wait=True, capacity=31), True, BUDGET), Queued)


# -- polls


def read_by(store, call):
    """The keys that a call reads."""
    transport = asked(store)
    txn, ranged, kvs = transport.txn, transport.range, []

    def each_txn(request, budget):
        answer = txn(request, budget)
        kvs.extend(kv for each in answer.answers if each.found for kv in each.found.kvs)
        return answer

    def each_range(request, budget):
        answer = ranged(request, budget)
        kvs.extend(answer[1].kvs)
        return answer

    transport.txn, transport.range = each_txn, each_range
    try:
        call()
    finally:
        transport.txn, transport.range = txn, ranged
    return kvs


def heard(store, poll):
    """The keys, and bytes of values, that a poll reads."""
    kvs = read_by(store, poll)
    return len(kvs), sum(len(kv.value) for kv in kvs)


def claims_read(store, call):
    """The claims that a call reads with their values."""
    return sum(bool(kv.value) for kv in read_by(store, call))


@pytest.mark.parametrize("ahead", [1, 5, 40])
def test_a_poll_reads_no_more_however_long_the_queue_is(opened, ahead):
    store, other = opened(), opened()
    take(other, ttl=60)
    for _ in range(ahead - 1):
        queue(other, ttl=60)
    one = queue(store, ttl=60)
    assert heard(store, lambda: renew(store, one)) == (2, 0)
    assert renew(store, one).state == "WAITING"


def test_a_poll_of_many_waiters_of_a_client_lists_their_queue_once_without_values(opened):
    store, other = opened(), opened()
    take(other, ttl=60)
    waiting = [(queue(store, ttl=60), None) for _ in range(30)]
    assert heard(store, lambda: store.renew(waiting, 5.0)) == (31, 0)


def test_a_poll_of_many_waiters_for_a_mutex_reads_no_values_whoever_has_gone(opened, server):
    """Else at each hand-off every beat would read a thousand claims, and the next keepalive might be late."""
    store, other = opened(), opened()
    holder, _ = take(other, ttl=60)
    first, *ours = [queue(store, ttl=60) for _ in range(20)]
    middle = queue(other, ttl=60)
    last = queue(store, ttl=60)
    beats, told = [(one, None) for one in (first, *ours, last)], []

    def poll():
        told[:] = [each.state for each in store.renew(beats, 5.0)]

    poll()
    other.release(holder, BUDGET)
    other.abandon(middle, BUDGET)
    server.call("kv/deleterange", {"key": store.store.entries[ours[3].token].key})
    assert heard(store, poll) == (20, 0)
    assert told == ["OFFERED", *["WAITING"] * 3, "LOST", *["WAITING"] * 16]
    assert store.store.entries[last.token].place == 19
    assert isinstance(store.acquire(first, False, BUDGET), Granted)
    del beats[0], beats[3]
    assert heard(store, poll) == (20, 0)
    assert told == ["WAITING"] * 19


def test_a_poll_of_many_waiters_sees_a_guard_that_is_younger_than_they_are(opened):
    store, other = opened(), opened()
    holder, _ = take(other, ttl=60)
    guarded = queue(other, ttl=60, min_hold=30.0)
    beats = [(queue(store, ttl=60), None) for _ in range(20)]
    other.release(holder, BUDGET)
    assert isinstance(other.acquire(guarded, False, BUDGET), Granted)
    other.release(guarded, BUDGET)
    for _ in range(2):
        assert [each.state for each in store.renew(beats, 5.0)] == ["WAITING"] * 20


def test_a_poll_of_many_waiters_sees_that_a_resize_has_made_room_for_one(opened):
    store, other = opened(), opened()
    whole = {"ttl": 60, "capacity": 4, "weight": 4, "kind": "semaphore"}
    take(other, **whole)
    beats = [(queue(store, **whole), None) for _ in range(20)]
    other.resize("a", 8, BUDGET)
    assert [each.state for each in store.renew(beats, 5.0)] == ["OFFERED", *["WAITING"] * 19]


def test_a_poll_finds_out_whatever_no_watch_has_told(opened, server):
    """For each waiter: its turn has come, its claim is gone, or a claim ahead of it is; and nothing else."""
    store, other = opened(), opened()
    holder, _ = take(other, ttl=60)
    second = queue(other, ttl=60)
    ours = [queue(store, ttl=60) for _ in range(3)]
    beats = [(one, None) for one in ours]
    assert [each.state for each in store.renew(beats, 5.0)] == ["WAITING"] * 3
    other.abandon(second, BUDGET)
    assert [each.state for each in store.renew(beats, 5.0)] == ["WAITING"] * 3
    assert heard(store, lambda: store.renew(beats, 5.0))[1] == 0, "what it saw is what it compares with"
    other.release(holder, BUDGET)
    assert [each.state for each in store.renew(beats, 5.0)] == ["OFFERED", "WAITING", "WAITING"]
    server.call("kv/deleterange", {"key": store.store.entries[ours[1].token].key})
    assert [each.state for each in store.renew(beats, 5.0)] == ["OFFERED", "LOST", "WAITING"]


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("seed", [1, 2, None])
@pytest.mark.parametrize("exclusive", [False, True], ids=["semaphore", "mutex"])
def test_a_poll_says_of_each_waiter_what_a_whole_look_says(opened, seed, exclusive, monkeypatch):
    """After any change, each claim that fits is offered, others wait, and one that is gone is lost."""
    monkeypatch.setattr(renewing, "_SINGLE", 1 if exclusive else 16)
    seed = random.randrange(2**32) if seed is None else seed
    print(f"seed {seed}")
    chance = random.Random(seed)
    store, other = opened(), opened()
    capacity = 4
    waiters, holders = [], []
    for _ in range(60):
        act = chance.choice(["join", "join", "leave", "evict" if exclusive else "resize", "ask"])
        if act == "join":
            where = chance.choice([store, other])
            one = permit(wait=True, capacity=capacity, weight=chance.choice([1, 1, 2, 3]))
            if exclusive:
                one = claim(ttl=60, min_hold=chance.choice([0.0] * 30 + [60.0]))
            answer = where.acquire(one, True, BUDGET)
            (holders if isinstance(answer, Granted) else waiters).append((where, one))
        elif act == "leave" and holders + waiters:
            some = chance.choice([each for each in (holders, waiters) if each])
            where, one = some.pop(chance.randrange(len(some)))
            where.abandon(one, BUDGET)
        elif act == "resize":
            other.resize("a", capacity := chance.choice([3, 4, 5]), BUDGET)
        elif act == "evict" and waiters:
            some = chance.choice(other.inspect("a", BUDGET).claims)
            if some.state in ("WAITING", "OFFERED"):
                other.evict("a", some.claim_id, BUDGET)
        elif act == "ask" and waiters:
            at = chance.randrange(len(waiters))
            answer = waiters[at][0].acquire(waiters[at][1], False, BUDGET)
            if not isinstance(answer, Queued):
                where, one = waiters.pop(at)
                if isinstance(answer, Granted):
                    holders.append((where, one))
        mine = [one for where, one in waiters if where is store]
        told = [each.state for each in store.renew([(one, None) for one in mine], 5.0)]
        shown = {info.claim_id: info.state for info in other.inspect("a", 5.0).claims}
        expected = [shown.get(lockkit.values.names.claim_id(one.token), "LOST") for one in mine]
        assert told == expected, (seed, act)
        waiters = [
            each for each in waiters if shown.get(lockkit.values.names.claim_id(each[1].token)) is not None
        ]


def test_permits_are_tried_for_by_many_at_a_time_without_a_refusal(server):
    """On a semaphore with room for all, every try is granted; none fails with a queue that keeps changing."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(lockkit.connect(server.url())) for _ in range(3)]
        told, done = [], []

        def work(client):
            semaphore = client.semaphore("roomy", 12, ttl=30)
            for _ in range(15):
                try:
                    lease = semaphore.try_acquire()
                except Exception as error:
                    told.append(error)
                    return
                if lease is None:
                    told.append("busy")
                else:
                    done.append(lease.release())

        threads = [threading.Thread(target=work, args=(clients[at % 3],)) for at in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert told == []
        assert len(done) == 8 * 15
        until(lambda: clients[0].inspect("roomy").claims == (), "nothing is left")


def test_a_crowd_of_threads_has_only_so_many_requests_under_way_and_gets_in(opened):
    """A server that takes a while for each: the waits in here are its."""
    store, other = opened(), opened()
    take(other, ttl=60)
    transport, under_way, most = asked(store), [], []
    real = transport.txn

    def txn(request, budget):
        under_way.append(request)
        most.append(len(under_way))
        threading.Event().wait(0.02)
        try:
            return real(request, budget)
        finally:
            under_way.remove(request)

    transport.txn = txn

    def ask(one):
        while True:
            with contextlib.suppress(Refused):
                return store.acquire(one, True, BUDGET)

    with ThreadPoolExecutor(200) as threads:
        answers = list(threads.map(ask, [claim(ttl=60) for _ in range(200)]))

    assert max(most) <= 64
    assert all(isinstance(answer, Queued) for answer in answers)
    assert len(states(other)) == 201
