"""Copies of a request that reach a Redis server late: they grant nothing."""

from __future__ import annotations

import contextlib
import time

import pytest

pytest.importorskip("redis")

from lockkit.store.spi import ABSENT, Lapsed, Unknown
from lockkit.testing.claims import claim, states, take
from lockkit.values.names import claim_id
from lockkit_redis.connection import Connection

HOUR = 3600.0


def keys(server, kind=""):
    """The keys there are, or those of one kind: q, d, c, f, g, r."""
    return sorted(
        key.decode() for key in server.cli("KEYS", "*") if key.endswith(f":{kind}".encode() if kind else b"")
    )


@pytest.fixture
def sent(monkeypatch):
    """The bytes of each script as sent; a store of another file may still be reading its Cluster's map."""
    copies = []
    exchange = Connection.exchange

    def spied(self, packed, end, replies):
        if b"\r\nEVAL" in packed:
            copies.append((packed, replies))
        return exchange(self, packed, end, replies)

    monkeypatch.setattr(Connection, "exchange", spied)
    return copies


def arrives(store, copy):
    """Return the server's answer to a copy of a request."""
    packed, count = copy
    (node,) = store.store.servers()
    with contextlib.closing(store.store.performer.open(node, time.monotonic() + 2.0)) as connection:
        answer = connection.exchange(packed, time.monotonic() + 2.0, count)[0]
        return answer[0], answer[2] if answer[0] == b"L" else None


def test_a_copy_of_a_create_that_comes_within_thirty_seconds_of_a_release_after_a_replay_grants_nothing(
    clock, store, sent
):
    one = claim()
    sent.clear()
    store.acquire(one, True, 2.0)
    copy = sent[0]
    store.store.unsure[one.token] = None  # as after no answer
    store.acquire(one, True, 2.0)
    store.release(one, 2.0)

    assert arrives(store, copy) == (b"L", b"late")
    clock.both(29)
    assert arrives(store, copy) == (b"L", b"late")
    assert states(store) == []


def test_a_copy_of_a_create_that_comes_after_thirty_seconds_grants_nothing(clock, store, sent):
    one = claim(ttl=5)
    sent.clear()
    store.acquire(one, True, 2.0)
    store.release(one, 2.0)
    for later in (31, 60, HOUR):
        clock.both(later)
        assert arrives(store, sent[0]) == (b"L", b"late")
    assert states(store) == []


@pytest.mark.parametrize("ending", ["release", "abandon", "emergency_release"])
def test_a_create_that_was_never_answered_and_is_given_up_grants_nothing_when_it_arrives(
    server, store, sent, ending
):
    warm, _ = take(store, "warm")
    store.release(warm, 2.0)
    one = claim()
    sent.clear()
    server.pause()
    with pytest.raises(Unknown):
        store.acquire(one, True, 0.1)
    server.resume()
    getattr(store, ending)(one, 2.0)

    assert arrives(store, sent[0]) == (b"L", b"late")
    assert states(store) == []


@pytest.mark.parametrize("ending", ["abandon", "emergency_release"])
def test_giving_up_a_claim_that_is_not_there_leaves_a_tombstone_for_a_minute(server, clock, store, ending):
    one = claim()
    assert getattr(store, ending)(one, 2.0) == ABSENT

    assert store.acquire(one, True, 2.0) == Lapsed("late")
    assert len(keys(server, "g")) == 1
    clock.both(61)
    assert keys(server, "g") == []


def test_whoever_removes_a_claim_that_was_replayed_buries_it(server, clock, store):
    shape = {"capacity": 5, "kind": "semaphore"}
    gone = {"lapse": {"ttl": 5}, "evict": {"ttl": 60}, "release": {"ttl": 60}}
    claims = {}
    for ending, terms in gone.items():
        claims[ending] = one = claim(**shape, **terms)
        for _ in range(2):
            store.acquire(one, True, 2.0)
        store.store.unsure[one.token] = None
    store.evict("a", claim_id(claims["evict"].token), 2.0, now=True)
    store.store.unsure.clear()
    store.release(claims["release"], 2.0)
    clock.both(5)

    for ending, one in claims.items():
        assert store.acquire(one, True, 2.0) == Lapsed("late"), ending


def test_no_server_that_refuses_leaves_the_client_remembering(server, store):
    """A refusal is definite: what is remembered for creates without an answer must not grow by it."""
    warm, _ = take(store, "warm")
    store.release(warm, 2.0)
    server.cli("CONFIG", "SET", "maxmemory", "1")
    try:
        for _ in range(20):
            with contextlib.suppress(Exception):
                store.acquire(claim(), True, 2.0)
    finally:
        server.cli("CONFIG", "SET", "maxmemory", "0")

    assert len(store.store.unsure) == 0
