"""Waiters that are woken on etcd: a watch that is cut, compacted or dead costs nobody the lock."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

import lockkit
from lockkit.store.spi import Granted, OpenOptions, Queued
from lockkit.testing.claims import BUDGET, claim, queue, renew, take
from lockkit.testing.processes import PATIENCE, installed, until
from lockkit.testing.stage import Work
from lockkit_etcd import operating, watching
from lockkit_etcd.backend import open_store
from lockkit_etcd.gateway import Gateway
from support.servers.etcd import EtcdServer
from support.servers.proxy import Proxy
from support.servers.started import started
from support.striking import strike_each_place

pytestmark = pytest.mark.skipif(not installed("etcd"), reason="make servers")


server = started(EtcdServer)


@pytest.fixture(autouse=True)
def empty(server):
    server.wipe()


@pytest.fixture
def proxy(server):
    with Proxy((server.host, server.port)) as proxy:
        yield proxy


@contextlib.contextmanager
def opened(url):
    with contextlib.closing(open_store(url, OpenOptions())) as store:
        yield store


def watched(store, one, answer):
    woken = threading.Event()
    return woken, store.watch(one.terms.name, answer.blockers, woken.set, one)


def room_of(store):
    """The last that was opened."""
    (shared_watches,) = store._watches._shared_watches.values()
    return shared_watches[-1]


def all_stand(store, events):
    """Wait until every watch stands, and forget who was woken because others had come after its look."""
    until(
        lambda: all(
            each._since < 1 << 63 for some in store._watches._shared_watches.values() for each in some
        ),
        "the watches stand",
    )
    for woken in events:
        woken.clear()


def stand_in_line(store, name="a", **terms):
    one = claim(name, **terms)
    answer = store.acquire(one, True, BUDGET)
    assert isinstance(answer, Queued)
    return one, answer


def test_what_happened_before_the_watch_began_is_not_missed(server):
    with opened(server.url()) as store:
        holder, _ = take(store)
        one, answer = stand_in_line(store)
        store.release(holder, BUDGET)
        woken, watch = watched(store, one, answer)
        assert woken.wait(PATIENCE)
        watch.close()


def test_nor_is_it_by_who_joins_a_watch_that_runs(server):
    terms = {"capacity": 2, "kind": "semaphore"}
    with opened(server.url()) as store:
        for _ in range(2):
            take(store, **terms)
        waits = [stand_in_line(store, **terms) for _ in range(4)]
        watches = [watched(store, *each) for each in waits[:3]]
        all_stand(store, [woken for woken, _ in watches])
        for one, _ in waits[:2]:
            store.release(one, BUDGET)
        assert watches[2][0].wait(PATIENCE), "its blockers are the two before it"
        until(lambda: len(room_of(store)._gone) == 2, "both are told")
        too, join = watched(store, *waits[3])
        assert too.wait(PATIENCE)
        for _, watch in watches:
            watch.close()
        join.close()
        assert store._watches._shared_watches == {}


def test_a_watch_begins_with_the_next_revision_and_who_looked_before_asks_at_once(server, monkeypatch):
    """etcd tells late what a watch that begins in the past has to tell, then and later: up to 100 ms."""
    starts = []
    real = Gateway.watch
    monkeypatch.setattr(Gateway, "watch", lambda self, *words: starts.append(words[2]) or real(self, *words))
    with opened(server.url()) as store:
        holder, _ = take(store)
        one, answer = stand_in_line(store)
        for _ in range(3):
            server.call("kv/put", {"key": b"x", "value": b"y"})
        woken, watch = watched(store, one, answer)
        assert woken.wait(PATIENCE), "something was written after its look"
        woken.clear()
        assert isinstance(store.acquire(one, False, BUDGET), Queued)
        store.release(holder, BUDGET)
        assert woken.wait(PATIENCE)
        watch.close()
    assert starts == [0]


def test_who_looked_when_the_watch_began_is_not_woken(server):
    with opened(server.url()) as store:
        take(store)
        one, answer = stand_in_line(store)
        woken, watch = watched(store, one, answer)
        until(lambda: room_of(store)._since == store.store.entries[one.token].looked + 1, "it stands")
        assert not woken.is_set()
        watch.close()


def test_many_who_wait_for_one_name_share_a_watch(server, monkeypatch):
    opened_streams = []
    real = Gateway.watch
    monkeypatch.setattr(
        Gateway, "watch", lambda self, *words: opened_streams.append(words) or real(self, *words)
    )
    with opened(server.url()) as store:
        take(store)
        waits = [stand_in_line(store) for _ in range(20)]
        watches = [watched(store, one, answer)[1] for one, answer in waits]
        assert [bool(words[1]) for words in opened_streams] == [False, False, True]
        for watch in watches:
            watch.close()


def test_only_who_comes_next_is_woken(server):
    with opened(server.url()) as store:
        holder, _ = take(store)
        waits = [stand_in_line(store) for _ in range(5)]
        events = [watched(store, one, answer)[0] for one, answer in waits]
        all_stand(store, events)
        store.release(holder, BUDGET)
        assert events[0].wait(PATIENCE)
        time.sleep(0.1)
        assert [each.is_set() for each in events] == [True, False, False, False, False]


def test_newcomers_wake_nobody(server):
    with opened(server.url()) as store:
        take(store)
        waits = [stand_in_line(store) for _ in range(3)]
        watches = [watched(store, *each) for each in waits]
        all_stand(store, [woken for woken, _ in watches])
        newcomers = [stand_in_line(store)[0] for _ in range(3)]
        store.release(newcomers[-1], BUDGET)
        until(lambda: room_of(store)._gone, "what came before it is told")
        assert not any(woken.is_set() for woken, _ in watches)
        for _, watch in watches:
            watch.close()


def test_a_wait_survives_a_cut_and_a_compaction_meanwhile(server, proxy):
    """The events that the watch missed are compacted away when it comes back: it looks at the queue again."""
    with lockkit.connect(server.url()) as client, lockkit.connect(f"etcd://{proxy.address}") as other:
        lease = client.lock("a", ttl=60).acquire()
        standing = threading.Event()
        work = Work(lambda: other.lock("a", ttl=60).acquire(30.0, on_wait=lambda _: standing.set()))
        assert standing.wait(PATIENCE)
        proxy.cut()
        lease.release()
        for _ in range(3):
            client.lock("b").acquire().release()
        server.compact()
        proxy.heal()
        work.result(PATIENCE).release()


def test_a_watch_whose_past_is_compacted_wakes_who_waits_and_goes_on(server):
    with opened(server.url()) as store:
        holder, _ = take(store)
        one, answer = stand_in_line(store)
        for _ in range(3):
            server.call("kv/put", {"key": b"x", "value": b"y"})
        server.compact()
        woken, watch = watched(store, one, answer)  # from a revision that is not there any more
        assert woken.wait(PATIENCE)
        woken.clear()
        store.release(holder, BUDGET)
        assert woken.wait(PATIENCE)
        watch.close()


def test_a_watch_that_is_silently_dead_costs_the_poll_cap_and_is_replaced(server):
    """The connection lives and nothing comes over it: half-open, as behind a firewall that forgot it."""
    with (
        Proxy((server.host, server.port)) as dead,
        opened(server.url()) as holders,
        opened(f"etcd://{dead.address}") as store,
        opened(server.url()) as way,
    ):
        first, _ = take(holders)
        one, answer = stand_in_line(store)
        woken, watch = watched(store, one, answer)
        shared_watch = room_of(store)
        until(lambda: dead.opened > 1, "the stream stands")
        time.sleep(0.2)
        stream = shared_watch._stream
        dead.hold(to_server=False)
        store.store.transport, kept = way.store.transport, store.store.transport
        holders.release(first, BUDGET)
        assert renew(store, one).state == "OFFERED"
        until(lambda: renew(store, one) and shared_watch._stream is not stream, "it is replaced")
        assert woken.wait(PATIENCE)
        assert isinstance(store.acquire(one, False, BUDGET), Granted)
        store.release(one, BUDGET)
        watch.close()
        store.store.transport = kept


def test_without_watches_waiters_poll(server, monkeypatch):
    class Deaf:
        def close(self):
            pass

    monkeypatch.setattr(Gateway, "watch", lambda self, *_: Deaf())
    with lockkit.connect(server.url()) as client, lockkit.connect(server.url()) as other:
        lease = client.lock("a", ttl=60).acquire()
        standing = threading.Event()
        work = Work(lambda: other.lock("a", ttl=60).acquire(30.0, on_wait=lambda _: standing.set()))
        assert standing.wait(PATIENCE)
        lease.release()
        work.result(PATIENCE).release()


def test_a_resize_wakes_who_fits_now(server):
    with opened(server.url()) as store:
        take(store, kind="semaphore")
        one, answer = stand_in_line(store, kind="semaphore")
        woken, watch = watched(store, one, answer)
        assert store.resize("a", 2, BUDGET) == 2
        assert woken.wait(PATIENCE)
        assert isinstance(store.acquire(one, False, BUDGET), Granted)
        watch.close()


def test_a_long_queue_is_resized_too(server):
    with opened(server.url()) as store:
        take(store, kind="semaphore")
        waits = [queue(store, kind="semaphore") for _ in range(150)]
        assert store.resize("a", 5, BUDGET) == 151
        assert {each.capacity for each in store.inspect("a", 5.0).claims} == {5}
        granted = [isinstance(store.acquire(one, False, BUDGET), Granted) for one in waits[:6]]
        assert granted == [True, True, True, True, False, False]


def test_a_resize_is_only_given_up_when_others_overtake_it(server, monkeypatch):
    monkeypatch.setattr(operating, "ROUNDS", 1)
    with opened(server.url()) as store:
        take(store, kind="semaphore")
        for _ in range(61):
            queue(store, kind="semaphore")
        assert store.resize("a", 5, BUDGET) == 62


# -- a waiter that cannot be next


@contextlib.contextmanager
def far_back(server):
    """A store, its claim behind three others, and the others: their store and their claims."""
    with opened(server.url()) as store, opened(server.url()) as other:
        others = [take(other)[0], queue(other), queue(other)]
        one, answer = stand_in_line(store)
        yield store, one, answer, other, others


def test_a_waiter_that_cannot_be_next_does_not_look_again_when_its_watch_begins(server):
    with far_back(server) as (store, one, answer, other, others):
        for _ in range(2):
            server.call("kv/put", {"key": b"x", "value": b"y"})
        woken, watch = watched(store, one, answer)
        until(lambda: room_of(store)._since > store.store.entries[one.token].looked + 1, "it stands")
        assert not woken.wait(0.2)
        other.abandon(others[-1], BUDGET)
        assert woken.wait(PATIENCE)
        watch.close()


def test_a_waiter_that_may_be_next_looks_again_when_its_watch_begins(server):
    with far_back(server) as (store, one, answer, _, _):
        for _ in range(3):
            server.call("kv/put", {"key": b"x", "value": b"y"})
        woken, watch = watched(store, one, answer)
        assert woken.wait(PATIENCE)
        watch.close()


def test_a_waiter_that_cannot_be_next_is_told_what_it_missed_before_its_watch_began(server):
    with far_back(server) as (store, one, answer, other, others):
        other.abandon(others[-1], BUDGET)
        woken, watch = watched(store, one, answer)
        assert woken.wait(PATIENCE)
        watch.close()


# -- a watch that is kept for a moment


@contextlib.contextmanager
def waited_before(server, monkeypatch, ahead=0):
    """A store that has just waited for a name and watches a second one; the streams that it opens."""
    streams = []
    real = Gateway.watch
    monkeypatch.setattr(Gateway, "watch", lambda self, *words: streams.append(words) or real(self, *words))
    with opened(server.url()) as store, opened(server.url()) as other:
        take(other)
        for _ in range(ahead):
            queue(other)
        for _ in range(2):
            one, answer = stand_in_line(store)
            woken, watch = watched(store, one, answer)
            all_stand(store, [woken])
            watch.close()
            key = store.store.entries[one.token].key
            store.abandon(one, BUDGET)
        # The next claim may get the same key, and would be woken by this news.
        kept = [each for some in store._watches._shared_watches.values() for each in some]
        until(lambda: all(key in each._gone for each in kept), "a kept watch knows that the wait is over")
        yield store, other, streams


def holder_of(store):
    """The only claim of a store."""
    (entry,) = store.store.entries.values()
    return entry.claim


def test_a_client_that_waits_again_in_a_short_queue_keeps_its_watch_for_the_next_wait(server, monkeypatch):
    with waited_before(server, monkeypatch) as (store, other, streams):
        one, answer = stand_in_line(store)
        server.call("kv/put", {"key": b"x", "value": b"y"})
        woken, watch = watched(store, one, answer)
        assert [bool(words[1]) for words in streams] == [False, True], "the third wait has the second's watch"
        assert not woken.wait(0.1), "nothing can have been missed"
        other.release(holder_of(other), BUDGET)
        assert woken.wait(PATIENCE)
        watch.close()


def test_a_claim_that_has_gone_before_a_kept_watch_is_joined_wakes_at_once(server, monkeypatch):
    with waited_before(server, monkeypatch) as (store, other, _):
        one, answer = stand_in_line(store)
        other.release(holder_of(other), BUDGET)
        kept = room_of(store)
        key = store.store.known(one.terms).queue.key + answer.blockers[0].rpartition("@")[0].encode()
        until(lambda: kept._gone.get(key, 0) > store.store.entries[one.token].looked, "it is told")
        woken, watch = watched(store, one, answer)
        assert woken.is_set()
        watch.close()


def test_a_kept_watch_ends_in_a_moment_if_nobody_waits(server, monkeypatch):
    with waited_before(server, monkeypatch) as (store, _, _):
        kept = room_of(store)
        until(lambda: store._watches._shared_watches == {}, "it is forgotten")
        until(lambda: not store.store.transport._streams, "its stream has ended")
        until(lambda: not store._watches._sweeper.running, "and so has the thread that ended it")
        assert kept.waiters == []


def test_a_kept_watch_that_is_cut_is_not_joined(server, monkeypatch):
    monkeypatch.setattr(watching, "_LASTING", 60.0)
    with waited_before(server, monkeypatch) as (store, other, streams):
        room_of(store)._stream._connection.interrupt()
        until(lambda: store._watches._shared_watches == {}, "it is forgotten")
        one, answer = stand_in_line(store)
        woken, watch = watched(store, one, answer)
        all_stand(store, [woken])
        other.release(holder_of(other), BUDGET)
        assert woken.wait(PATIENCE)
        assert len(streams) == 3
        watch.close()


def test_in_a_long_queue_no_watch_is_kept(server, monkeypatch):
    with waited_before(server, monkeypatch, ahead=6) as (store, _, streams):
        assert store._watches._shared_watches == {}
        assert [bool(words[1]) for words in streams] == [False, False]


def test_a_signal_that_interrupts_the_end_of_a_wait_leaves_no_watch_for_good(server, monkeypatch):
    """The thread that ends kept watches may have been interrupted in its start."""
    monkeypatch.setattr(watching, "_LASTING", 0.05)

    with opened(server.url()) as other:
        take(other)

        def waiting():
            store = open_store(server.url(), OpenOptions())
            for _ in range(2):  # the second watch would be kept
                one, answer = stand_in_line(store)
                woken, watch = watched(store, one, answer)
                all_stand(store, [woken])
                if not store._watches._left.likely(store.store.known(one.terms).queue.key):
                    watch.close()
                    store.abandon(one, BUDGET)
            return store, one, answer, watch

        for where, (store, one, answer, watch) in strike_each_place(waiting, lambda some: some[-1].close()):
            watch.close()  # as a caller does that was interrupted
            watched(store, one, answer)[1].close()
            until(lambda store=store: store._watches._shared_watches == {}, f"it ends: {where}")
            store.abandon(one, BUDGET)
            store.close()
