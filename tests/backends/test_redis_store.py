"""The Redis store when the server forgets scripts or data. test_redis.py is the kit."""

from __future__ import annotations

import threading
import time

import pytest

pytest.importorskip("redis")

import lockkit
from lockkit.store.spi import ABSENT, RELEASED, Busy, Claim, Granted, Lapsed, Refused, Terms, Unknown
from lockkit.testing.claims import claim, queue, renew, settled, states, take
from lockkit.testing.processes import PATIENCE
from lockkit.values.names import claim_id
from lockkit_redis.keys import Keys

# -- the script cache ----------------------------------------------------------------------------------------


def test_every_call_works_when_the_server_has_just_forgotten_the_scripts(server, store):
    def forgetful():
        server.cli("SCRIPT", "FLUSH")
        return store

    one, fence = take(forgetful())
    other = queue(forgetful())
    assert forgetful().acquire(one, True, 2.0).fence == fence
    assert renew(forgetful(), one, fence).state == "HELD"
    assert forgetful().extend(one, fence, 40, 2.0).state == "HELD"
    assert forgetful().annotate("a", claim_id(one.token), {"x": 1}, 2.0)
    assert forgetful().resize("a", 1, 2.0) == 2
    assert forgetful().put_record("a", {"x": 1}, 0, 2.0).version == 1
    assert isinstance(forgetful().acquire(claim(wait=False), True, 2.0), Busy)
    assert forgetful().evict("a", claim_id(other.token), 2.0).outcome == "REMOVED"
    assert forgetful().abandon(claim(), 2.0) == ABSENT
    assert forgetful().emergency_release(claim(), 2.0) == ABSENT
    assert forgetful().release(one, 2.0) == RELEASED
    assert states(forgetful()) == []


def test_a_heartbeat_of_a_thousand_names_works_when_the_server_has_just_forgotten_the_scripts(server, store):
    held = [take(store, f"n{number}") for number in range(1000)]
    server.cli("SCRIPT", "FLUSH")

    answers = store.renew(held, 5.0)

    assert {answer.state for answer in answers} == {"HELD"}


# -- lost and kept data --------------------------------------------------------------------------------------


def test_a_restart_with_its_data_keeps_holders_and_queue(server, store, full):
    held = [take(store, **shape) for shape in full]
    waiter = queue(store, **full[0])

    server.restart(lose_data=False)

    for one, fence in held:
        assert settled(lambda one=one, fence=fence: renew(store, one, fence)).state == "HELD"
    assert states(store) == ["HELD"] * len(full) + ["WAITING"]
    store.release(held[0][0], 2.0)
    assert store.acquire(waiter, False, 2.0).fence > held[-1][1]


LOSSES = pytest.mark.parametrize(
    "lose",
    [lambda server: server.restart(lose_data=True), lambda server: server.cli("FLUSHALL")],
    ids=["restart", "FLUSHALL by a stranger"],
)


@LOSSES
def test_after_lost_data_the_holder_is_lost_and_the_next_fence_is_higher(server, store, full, lose):
    held = [take(store, **shape) for shape in full]
    waiter = queue(store, **full[0])

    lose(server)

    for one, fence in held:
        assert settled(lambda one=one, fence=fence: renew(store, one, fence)).state == "LOST"
        assert store.release(one, 2.0) == ABSENT
    assert renew(store, waiter).state == "LOST"
    assert store.acquire(waiter, False, 2.0) == Lapsed("absent")
    assert take(store, **full[0])[1] > held[-1][1]
    assert renew(store, *held[0]).state == "LOST"


@pytest.mark.parametrize("lose", ["restart", "FLUSHALL"])
def test_a_lease_that_the_server_has_lost_says_so_once_at_the_next_heartbeat(server, lose):
    told = []
    lost = threading.Event()

    def on_lost():
        told.append(1)
        lost.set()

    with lockkit.connect(server.url()) as client:
        lease = client.lock("a", ttl=1.5, on_lost=on_lost).acquire(timeout=0)
        if lose == "restart":
            server.restart(lose_data=True)
        else:
            server.cli("FLUSHALL")
        assert lost.wait(PATIENCE)
        assert not lease.valid()
        again = client.lock("a").acquire(timeout=PATIENCE)
        assert again.fence > lease.fence
        assert not lease.valid()
        lease.release()
        assert again.valid()
        again.release()
    assert told == [1]


def test_a_token_is_a_word_and_no_command_whatever_is_in_it(server, store):
    """Other processes' tokens come in handles; the core refuses such tokens, but is not relied on."""
    ends = (
        "\r\n$1\r\n0\r\n$1\r\n0\r\n$1\r\n0\r\n$2\r\n{}\r\n*3\r\n"
        "$3\r\nSET\r\n$5\r\nOWNED\r\n$1\r\n1\r\n*2\r\n$4\r\nECHO"
    )
    for token in ("a" * 32 + ends, "short", "ä" * 32):
        one = Claim(token, Terms("a", ttl=30.0))
        assert store.release(one, 2.0) == ABSENT
        fence = store.acquire(one, True, 2.0).fence
        assert [each.state for each in store.renew([(one, fence)], 2.0)] == ["HELD"]
        assert store.release(one, 2.0) == RELEASED
    assert not server.cli("EXISTS", "OWNED")


# -- a claim that queues up behind one, in few commands ------------------------------------------------------


def keys_of(store, name="a"):
    return Keys.of(store.store.namespace, name)


def test_who_queues_up_behind_a_claim_that_has_lapsed_gets_its_place(store):
    one = claim(ttl=0.3, lock_delay=0.0)
    assert isinstance(store.acquire(one, True, 2.0), Granted)
    time.sleep(0.4)
    assert isinstance(store.acquire(claim(), True, 2.0), Granted)


def test_who_queues_up_behind_a_claim_of_a_newer_version_is_refused(server, store):
    one, _ = take(store)
    key = keys_of(store).claims
    stored = server.cli("HGET", key, one.token)
    server.cli("HSET", key, one.token, stored[:-1] + b',"min_reader":9}')
    with pytest.raises((Refused, Unknown), match="newer lockkit"):
        store.acquire(claim(), True, 2.0)
    assert server.cli("ZCARD", keys_of(store).queue) == 1


def test_a_fence_is_above_the_queue_also_where_the_record_of_fences_is_gone(server, store):
    """As after an eviction by the server: then the clock alone would not do."""
    keys, high = keys_of(store), 9_000_000_000_000_000
    server.cli("SET", keys.fence, high)
    _, fence = take(store)
    server.cli("DEL", keys.fence)
    queue(store)
    fences = [each.fence for each in store.inspect("a", 2.0).claims]
    assert fences == [high + 1, high + 2]
    assert fence == high + 1


def test_queueing_up_takes_few_commands(server, store):
    take(store)
    queue(store)
    mine = claim()
    before = commands(server)
    store.acquire(mine, True, 2.0)
    assert commands(server) - before <= 16


def commands(server):
    """How many commands scripts have called so far."""
    return sum(int(each["calls"]) for name, each in server.commands().items() if name in INSIDE)


INSIDE = {
    *("time", "exists", "get", "set", "zrange", "zscore", "zadd", "zrank", "hmget", "hget", "hset", "pttl"),
    *("pexpireat", "zrangebyscore"),
}
