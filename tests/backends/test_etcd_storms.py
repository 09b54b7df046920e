"""Hundreds of waits on etcd that are cancelled at once: their claims go together, and hold nobody up."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import threading

import pytest

import lockkit
import lockkit.aio
from lockkit.errors import AcquireCancelled, OutcomeUnknown
from lockkit.store.spi import Granted, OpenOptions, Removal, Unknown
from lockkit.testing.claims import BUDGET, claim, queue, states, take
from lockkit.testing.processes import installed, until
from support.etcd_transports import SCHEMES, asked, open_etcd
from support.servers.etcd import EtcdServer
from support.servers.etcd_gateway import covered
from support.servers.started import started

pytestmark = pytest.mark.skipif(not installed("etcd"), reason="make servers")

WAITS, FEW = 300, 20
MOST = 60
"""Most requests while all are given up, with test and heartbeat; one for each claim would be 300."""


server = started(EtcdServer)


@pytest.fixture(autouse=True)
def empty(server):
    server.wipe()


@pytest.fixture(params=SCHEMES)
def url(server, request):
    return request.param + server.url().removeprefix("etcd")


def queued(server):
    answer = server.call("kv/range", {**covered("lockkit/default/q/"), "count_only": True})
    return int(answer.get("count", 0))


def asleep(client):
    """How many acquisitions of a client are queued, and have no request under way."""
    engine = client._opening.engine  # None until the store is open
    under_way = list(engine.under_way.items()) if engine is not None else []
    return sum(
        waits is not None and waits.standing and not attempt.request_pending for attempt, waits in under_way
    )


@contextlib.contextmanager
def stopped(server):
    """The server stands still, so that all waits are cancelled before the first claim is removed."""
    server.pause()
    try:
        yield
    finally:
        server.resume()


def test_the_claims_of_hundreds_of_cancelled_tasks_go_in_a_few_requests(server, url):
    async def storm():
        async with await lockkit.aio.connect(url) as client, await lockkit.aio.connect(url) as other:
            holder = await other.lock("a", ttl=30).acquire()
            waits = []
            while len(waits) < WAITS:
                waits += [asyncio.create_task(client.lock("a", ttl=30).acquire()) for _ in range(FEW)]
                await asyncio.to_thread(
                    until, lambda waits=waits: asleep(client) == len(waits), "they wait", 60.0
                )
            before = server.requests()
            with stopped(server):
                for wait in waits:
                    wait.cancel()
                ended = await asyncio.gather(*waits, return_exceptions=True)
            assert all(isinstance(error, asyncio.CancelledError) for error in ended)
            await asyncio.to_thread(until, lambda: queued(server) == 1, "only the holder is left", 20.0)
            assert server.requests() - before <= MOST
            await holder.release()
            async with other.lock("a", ttl=30).acquire(timeout=0.0):
                pass

    asyncio.run(storm())


def test_the_claims_of_hundreds_of_cancelled_threads_go_in_a_few_requests(server, url):
    stop, ended = lockkit.Cancel(), []

    def wait():
        try:
            client.lock("a", ttl=30).acquire(cancel=stop)
        except AcquireCancelled as error:
            ended.append(error)

    with lockkit.connect(url) as client, lockkit.connect(url) as other:
        holder = other.lock("a", ttl=30).acquire()
        threads = [threading.Thread(target=wait) for _ in range(WAITS)]
        for number, thread in enumerate(threads, 1):
            thread.start()
            if number % FEW == 0:
                until(lambda number=number: asleep(client) == number, "they wait", 60.0)
        before = server.requests()
        with stopped(server):
            stop.cancel()
            for thread in threads:
                thread.join(30.0)
        assert len(ended) == WAITS
        until(lambda: queued(server) == 1, "only the holder is left", 20.0)
        assert server.requests() - before <= MOST
        holder.release()
        other.lock("a", ttl=30).acquire(timeout=0.0).release()


# -- the request itself


@pytest.fixture
def store(url):
    with contextlib.closing(open_etcd(url, OpenOptions())) as opened:
        yield opened


def removals(*claims, how="unused"):
    return [Removal(one, abandon=False, how=how) for one in claims]


def sent(store):
    """The calls to etcd from now on, by name."""
    calls = []
    for name in ("txn", "revoke", "range"):
        real = getattr(asked(store), name)

        def call(*words, name=name, real=real):
            calls.append(name)
            return real(*words)

        setattr(asked(store), name, call)
    return calls


def test_only_the_claims_that_are_named_are_removed_though_another_one_has_gone_already(store, server):
    one, _ = take(store)
    waiting = [queue(store) for _ in range(4)]
    server.call("kv/deleterange", {"key": store.store.entries[waiting[1].token].key})
    assert store.extras.remove_many(removals(*waiting[:3]), BUDGET) == [None] * 3
    assert states(store) == ["HELD", "WAITING"]
    assert store.store.entries.keys() == {one.token, waiting[3].token}


def test_a_key_that_serves_another_claim_by_now_is_left_alone(store, server):
    take(store)
    mine, other = queue(store), claim()
    key = store.store.entries[mine.token].key
    (kv,) = server.call("kv/range", {"key": key})["kvs"]
    server.call("kv/deleterange", {"key": key})
    # Created anew, so another claim's.
    server.call("kv/put", {"key": key, "value": base64.b64decode(kv["value"])})
    assert store.extras.remove_many(removals(mine, other), BUDGET) == [None, None]
    assert "kvs" in server.call("kv/range", {"key": key})


def test_a_claim_whose_acquire_had_no_answer_takes_its_lease_with_it(store, server):
    take(store)
    waiting, doubtful = queue(store), claim()
    real = asked(store).txn

    def unanswered(*words):
        real(*words)
        raise Unknown(OutcomeUnknown("no answer"))

    asked(store).txn = unanswered
    with pytest.raises(Unknown):
        store.acquire(doubtful, True, BUDGET)
    asked(store).txn = real
    leases = {lease.id for lease in store.store.entries[doubtful.token].leases if lease.doubtful}
    assert leases
    calls = sent(store)
    assert store.extras.remove_many(removals(waiting, doubtful), BUDGET) == [None, None]
    assert sorted(calls) == ["revoke"] * len(leases) + ["txn"]
    assert states(store) == ["HELD"]
    assert store.acquire(doubtful, True, BUDGET).why == "late"


def test_a_holder_with_a_lock_delay_goes_on_blocking_and_one_that_waits_goes(store):
    one, _ = take(store, lock_delay=30.0, ttl=30.0)
    waiting = queue(store, lock_delay=30.0, ttl=30.0)
    calls = sent(store)
    assert store.extras.remove_many(removals(waiting, how="ungraceful"), BUDGET) == [None]
    assert calls == ["txn"]
    assert states(store) == ["HELD"]
    assert store.extras.remove_many(removals(one, how="ungraceful"), BUDGET) == [None]
    assert states(store) == ["LINGERING"]


def test_without_an_answer_no_claim_counts_as_removed(store):
    one, _ = take(store)
    waiting = [queue(store) for _ in range(2)]
    real = asked(store).txn

    def unanswered(*words):
        raise Unknown(OutcomeUnknown("no answer"))

    asked(store).txn = unanswered
    assert all(isinstance(each, Unknown) for each in store.extras.remove_many(removals(*waiting), BUDGET))
    asked(store).txn = real
    assert store.extras.remove_many(removals(*waiting), BUDGET) == [None, None]
    assert states(store) == ["HELD"]
    assert isinstance(store.acquire(one, False, BUDGET), Granted)
