"""Replicas, Sentinel and failover on Redis: fences rise, and a demoted primary grants nothing."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

pytest.importorskip("redis")

import redis

import lockkit
from lockkit.errors import BackendUnavailable
from lockkit.lib.clock import SYSTEM
from lockkit.store.spi import RELEASED, Granted, OpenOptions, Queued, Refused, Unknown
from lockkit.testing.claims import claim, settled, take
from lockkit.testing.processes import PATIENCE, free_port, until
from lockkit.testing.stage import Work
from lockkit.testing.troubles import IN_TIME, SECRET, trouble
from lockkit_redis.backend import open_store
from support.servers.redis import RedisServer
from support.servers.redis_groups import RedisSentinels
from support.servers.redis_queue import queue


def role(server):
    """The role of a server; a sentinel that changes it cuts every connection."""
    with contextlib.suppress(redis.ConnectionError), server.connect() as client:
        return client.execute_command("ROLE")[0]


@pytest.fixture(scope="module")
def pair():
    with (
        RedisServer(repl_diskless_sync_delay=0) as primary,
        RedisServer(replicaof=f"{primary.host} {primary.port}") as replica,
    ):
        until(lambda: b"master_link_status:up" in replica.cli("INFO", "replication"), "in step")
        yield primary, replica


def test_with_min_replicas_a_lock_is_copied_before_it_is_granted_and_its_name_is_in_the_index(pair):
    primary, replica = pair
    primary.cli("FLUSHALL")
    with contextlib.closing(open_store(primary.url() + "?min_replicas=1", OpenOptions())) as store:
        one, _ = take(store)
        assert replica.cli("ZCARD", "lockkit:default:{a}:q") == 1
        assert store.names("", 2.0) == ["a"]
        store.release(one, 2.0)


@pytest.mark.parametrize("forgotten", [False, True], ids=["", "and the scripts are forgotten"])
def test_with_min_replicas_a_replica_that_does_not_answer_is_no_copy(pair, forgotten, nothing_held):
    primary, replica = pair
    primary.cli("FLUSHALL")
    with contextlib.closing(open_store(primary.url() + "?min_replicas=1", OpenOptions())) as store:
        one, fence = take(store)
        store.release(one, 2.0)
        replica.pause()
        try:
            if forgotten:
                primary.cli("SCRIPT", "FLUSH")
            began = time.monotonic()
            with pytest.raises(Refused, match="only 0 of 1 replicas"):
                store.acquire(claim(), True, 2.0)
            assert time.monotonic() - began < IN_TIME
            assert nothing_held(primary)
        finally:
            replica.resume()
        one, higher = take(store)
        assert higher > fence
        store.release(one, 2.0)


def test_with_min_replicas_a_missing_replica_refuses_a_waiter_whose_turn_has_come(pair, nothing_held):
    primary, _ = pair
    primary.cli("FLUSHALL")
    with (
        contextlib.closing(open_store(primary.url(), OpenOptions())) as other,
        contextlib.closing(open_store(primary.url() + "?min_replicas=2", OpenOptions())) as store,
    ):
        held, _ = take(other)
        waiting = claim()
        assert isinstance(store.acquire(waiting, True, 2.0), Queued)
        other.release(held, 2.0)

        with pytest.raises(Refused, match="only 1 of 2 replicas"):
            store.acquire(waiting, False, 2.0)

        assert nothing_held(primary)


def test_what_too_few_replicas_have_was_granted_to_nobody_and_min_hold_keeps_nothing_of_it(
    pair, nothing_held
):
    primary, _ = pair
    primary.cli("FLUSHALL")
    with contextlib.closing(open_store(primary.url() + "?min_replicas=2", OpenOptions())) as store:
        with pytest.raises(Refused, match="only 1 of 2 replicas"):
            store.acquire(claim(min_hold=30, lock_delay=30), True, 0.5)

        assert nothing_held(primary)


@pytest.mark.parametrize("waits", [False, True], ids=["for a free lock", "in line"])
def test_too_few_replicas_are_told_and_not_a_timeout(pair, waits, nothing_held):
    primary, _ = pair
    primary.cli("FLUSHALL")
    with (
        lockkit.connect(primary.url()) as other,
        lockkit.connect(primary.url() + "?min_replicas=2&request_timeout=500ms") as client,
    ):
        lease = other.lock("a").acquire() if waits else None
        standing = threading.Event()
        waiter = Work(lambda: client.lock("a").acquire(timeout=1.5, on_wait=lambda _: standing.set()))
        if lease is not None:
            assert standing.wait(PATIENCE)
            lease.release()
        error = waiter.error()

        assert isinstance(error, BackendUnavailable)
        assert "only 1 of 2 replicas" in str(error)
        assert nothing_held(primary)


def test_after_a_failover_the_next_fence_is_higher_and_the_demoted_primary_grants_nothing():
    with RedisSentinels() as group, contextlib.closing(open_store(group.url(), OpenOptions())) as store:
        held, fence = take(store)
        old = group.primary
        until(lambda: group.pair[1].cli("ZCARD", "lockkit:default:{a}:q"), "it is copied")

        new = group.fail_over()

        began = time.monotonic()
        while True:
            try:
                renewal = store.renew([(held, fence)], 2.0)[0]
                break
            except (Refused, Unknown):
                assert time.monotonic() - began < PATIENCE
        assert renewal.state == "HELD"
        assert store.release(held, 2.0) == RELEASED
        again, higher = take(store)
        assert higher > fence
        old.start()
        old.cli("REPLICAOF", new.host, new.port)  # as the sentinels do, in their own time
        until(lambda: role(old) == b"slave", "the old primary is demoted")
        assert "it is a replica" in str(trouble(old.url()))
        assert new.cli("ZCARD", "lockkit:default:{a}:q") == 1
        assert store.renew([(again, higher)], 2.0)[0].state == "HELD"


@pytest.mark.parametrize("how", ["renewed", "renewed together", "confirmed"])
def test_a_server_set_back_behind_an_extend_learns_the_ttl_with_the_next_renewal(how):
    with RedisServer() as server, contextlib.closing(open_store(server.url(), OpenOptions())) as store:
        one, fence = take(store, capacity=2, kind="semaphore", ttl=30.0)
        server.cli("SAVE")
        assert store.extend(one, fence, 3600.0, 2.0).state == "HELD"
        extended = one._replace(terms=one.terms._replace(ttl=3600.0))

        server.kill()
        server.start()

        if how == "confirmed":
            assert settled(lambda: store.acquire(extended, False, 2.0)).fence == fence
        else:
            beats = [(extended, fence), (claim(), None)][: 1 + ("together" in how)]
            assert settled(lambda: store.renew(beats, 2.0))[0].state == "HELD"
        (lies,) = queue(server.connect(), "a")
        assert lies.deadline / 1000 - SYSTEM.wall() > 3000


def test_a_connection_to_a_primary_that_was_demoted_grants_nothing_and_the_next_asks_the_new_one():
    with RedisSentinels() as group, contextlib.closing(open_store(group.url(), OpenOptions())) as store:
        one, fence = take(store)
        store.release(one, 2.0)
        old = group.primary
        group.sentinels[0].cli("SENTINEL", "FAILOVER", group.service)
        until(lambda: group.primary is not old, "another primary", 20)
        until(lambda: role(old) == b"slave", "the old one is demoted", 20)

        granted, refusals, began = None, 0, time.monotonic()
        while granted is None and time.monotonic() - began < PATIENCE:
            one = claim()
            try:
                granted = store.acquire(one, True, 2.0)
            except (Refused, Unknown):
                refusals += 1

        assert isinstance(granted, Granted)
        assert granted.fence > fence
        assert refusals <= 2
        assert group.primary.cli("ZCARD", "lockkit:default:{a}:q") == 1


def test_sentinels_that_know_no_such_service_or_do_not_answer_are_told():
    with RedisServer(as_sentinel=True, sentinel=["monitor kit 127.0.0.1 1 1"]) as sentinel:
        url = f"redis+sentinel://:{SECRET}@{sentinel.address},127.0.0.1:{free_port()}/other/0"
        assert "knows no 'other'" in str(trouble(url))
        sentinel.pause()
        assert "cannot reach" in str(trouble(url))
