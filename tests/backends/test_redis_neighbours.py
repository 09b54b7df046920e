"""Trouble with one lock, one node or one command costs nobody else, and is told as it is."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import ssl
import threading
import time

import pytest

import lockkit
from lockkit.errors import IncompatibleLayout, PermissionDenied
from lockkit.store.spi import RELEASED, Granted, OpenOptions, Queued, Refused, Unknown
from lockkit.testing.claims import claim, queue, renew, take
from lockkit.testing.processes import PATIENCE, until
from lockkit.values.names import claim_id
from lockkit_redis.address import parse
from lockkit_redis.backend import open_store
from lockkit_redis.connection import Connection, pack
from lockkit_redis.keys import Keys
from lockkit_redis.server import Server
from lockkit_redis.store import RedisStore
from support.servers.redis import RedisServer
from support.servers.redis_groups import RedisCluster
from support.servers.started import started

# -- a Cluster of which a node is away


cluster = started(RedisCluster, cluster_require_full_coverage="no")


@pytest.fixture
def places(cluster):
    """Names that the first node has, and names that others have."""
    names = [f"n{at}" for at in range(40)]
    there = [name for name in names if cluster.node_of(Keys.of("default", name).queue) is cluster.nodes[0]]
    return there, [name for name in names if name not in there]


def test_a_silent_node_costs_the_locks_of_the_others_nothing(cluster, places):
    there, elsewhere = places
    ttl = 4.0  # a machine that is busy with tests may let a heartbeat wait for a second
    with lockkit.connect(cluster.url()) as client:
        lost = client.lock(there[0], ttl=ttl).acquire()
        held = [client.lock(name, ttl=ttl).acquire() for name in elsewhere[:6]]
        cluster.nodes[0].pause()
        try:
            assert lost.lost.wait(PATIENCE)
            end = time.monotonic() + 1.5 * ttl  # they would have run out
            while time.monotonic() < end:
                assert all(lease.valid() for lease in held)
                time.sleep(0.05)
        finally:
            cluster.nodes[0].resume()
        for lease in held:
            assert lease.release().outcome == "RELEASED"
        with contextlib.suppress(lockkit.LockkitError):
            lost.release()


def test_a_client_that_comes_while_a_node_is_silent_is_warned_and_has_the_others(cluster, places, caplog):
    _, elsewhere = places
    cluster.nodes[0].pause()
    began = time.monotonic()
    try:
        with caplog.at_level(logging.WARNING), lockkit.connect(cluster.url()) as client:
            for name in elsewhere[:3]:
                client.lock(name).acquire(timeout=0).release()
            assert time.monotonic() - began < 5  # a request timeout for each of the three would be 6 s
    finally:
        cluster.nodes[0].resume()
    assert "a node cannot be used" in caplog.text
    assert cluster.nodes[0].address in caplog.text.partition("a node cannot be used")[2]
    assert cluster.url() not in caplog.text


# -- what the server forgot, or was written by others


def test_after_a_flush_the_index_has_the_names_again(store, server):
    one, fence = take(store, "a")
    take(store, "b")
    assert store.names("", 2.0) == ["a", "b"]
    server.cli("FLUSHALL")
    assert renew(store, one, fence).why == "absent"
    take(store, "a")
    assert store.names("", 2.0) == ["a"]


def test_after_a_flush_the_index_has_the_name_of_one_who_held_nothing(store, server):
    store.release(take(store, "a")[0], 2.0)
    server.cli("FLUSHALL")
    take(store, "a")
    assert store.names("", 2.0) == ["a"]


def test_a_claim_for_newer_readers_is_not_touched(store, server):
    one, fence = take(store)
    key = Keys.of("default", "a").claims
    newer = json.loads(server.cli("HGET", key, one.token)) | {"v": 9, "min_reader": 9}
    server.cli("HSET", key, one.token, json.dumps(newer))
    for touch in (
        lambda: store.acquire(claim(), True, 2.0),
        lambda: store.resize("a", 2, 2.0),
        lambda: store.evict("a", claim_id(one.token), 2.0),
        lambda: store.renew([(one, fence)], 2.0),
        lambda: store.release(one, 2.0),
    ):
        with pytest.raises((Refused, Unknown)) as told:
            touch()
        assert isinstance(told.value.error, IncompatibleLayout)
    (shown,) = store.inspect("a", 2.0).holders
    assert "a newer lockkit wrote it" in shown.evidence
    assert json.loads(server.cli("HGET", key, one.token)) == newer


def test_a_release_does_not_touch_a_waiter_for_newer_readers(store, server):
    held, _ = take(store)
    waits = queue(store)
    key = Keys.of("default", "a").claims
    stored = server.cli("HGET", key, waits.token)
    server.cli("HSET", key, waits.token, stored[:-1] + b',"min_reader":9}')
    assert store.release(held, 2.0) == RELEASED
    assert b"WAITING" in server.cli("HGET", key, waits.token)


NEWER = b'{"v":9,"min_reader":9,"weight":1,"capacity":3,"state":"HELD"}'


@pytest.mark.parametrize("lapsed", [False, True], ids=["running", "lapsed"])
@pytest.mark.parametrize("stored", [b"{bad", NEWER], ids=["damaged", "newer"])
def test_a_claim_that_cannot_be_read_costs_no_other_of_its_lock_a_call(store, server, stored, lapsed):
    keys = Keys.of("default", "a")
    beats = [take(store, capacity=3) for _ in range(3)]
    (unread, _), (one, fence), (other, _) = beats
    server.cli("HSET", keys.claims, unread.token, stored)
    if lapsed:
        server.cli("ZADD", keys.deadlines, 1, unread.token)

    first, *others = store.renew(beats, 2.0)
    assert first.state == ("LOST" if lapsed and stored != NEWER else "UNKNOWN")
    assert [each.state for each in others] == ["HELD", "HELD"]
    assert store.extend(one, fence, 60.0, 2.0).state == "HELD"
    assert store.evict("a", claim_id(one.token), 2.0).outcome == "MARKED"
    assert store.release(other, 2.0) == RELEASED
    assert (stored == NEWER) == (server.cli("HGET", keys.claims, unread.token) == NEWER)


@pytest.mark.parametrize("stored", [b"{bad", NEWER], ids=["damaged", "newer"])
def test_a_resize_that_a_claim_stops_changes_no_other(store, server, stored):
    key = Keys.of("default", "a").claims
    one, unread = [take(store, capacity=3)[0] for _ in range(2)]
    server.cli("HSET", key, unread.token, stored)
    before = server.cli("HGET", key, one.token)
    with pytest.raises((Refused, Unknown)):
        store.resize("a", 1, 2.0)
    assert server.cli("HGET", key, one.token) == before


def test_nobody_is_let_in_behind_a_claim_that_cannot_be_read_and_holds_more_than_fits(store, server):
    keys = Keys.of("default", "a")
    first, second, third = [take(store, capacity=3)[0] for _ in range(3)]
    store.resize("a", 1, 2.0)  # the second and third hold outside
    waits = queue(store, capacity=1)
    server.cli("HSET", keys.claims, third.token, NEWER)
    assert store.release(first, 2.0) == RELEASED
    assert store.release(second, 2.0) == RELEASED
    with pytest.raises((Refused, Unknown)):
        store.acquire(waits, False, 2.0)
    assert server.cli("ZRANGE", keys.queue, 0, -1) == [third.token.encode()]


def test_a_record_for_newer_readers_is_not_touched(store, server):
    key = Keys.of("default", "a").record
    newer = b'{"v":9,"min_reader":9,"version":1,"written":1.0,"value":{}}'
    server.cli("SET", key, newer)
    for touch in (lambda: store.record("a", 2.0), lambda: store.put_record("a", {}, 1, 2.0)):
        with pytest.raises((Refused, Unknown)) as told:
            touch()
        assert isinstance(told.value.error, IncompatibleLayout)
    assert server.cli("GET", key) == newer


def test_a_waiter_takes_its_offer_while_memory_is_full(store, server):
    held, _ = take(store)
    waits = queue(store)
    server.cli("CONFIG", "SET", "maxmemory", "1")
    try:
        store.release(held, 2.0)
        assert isinstance(store.acquire(waits, False, 2.0), Granted)
    finally:
        server.cli("CONFIG", "SET", "maxmemory", "0")


def test_an_operator_asks_and_evicts_a_holder_while_memory_is_full(server):
    with lockkit.connect(server.url(), ttl=60.0) as client:
        lease = client.lock("full").acquire()
        server.cli("CONFIG", "SET", "maxmemory", "1")
        try:
            client.ask_release("full", lease.claim_id, "room is needed")
            evicted = client.evict("full", lease.claim_id, reason="room is needed", now=True)
        finally:
            server.cli("CONFIG", "SET", "maxmemory", "0")
        assert evicted.outcome == "REMOVED"
        assert client.inspect("full").claims == ()
        lease.release()


# -- commands that are not there


def test_a_transaction_that_broke_off_leaves_no_connection_inside_it():
    with (
        RedisServer(rename_command=['EXEC ""']) as server,
        contextlib.closing(open_store(server.url(), OpenOptions())) as store,
    ):
        with pytest.raises(Refused, match="renamed or forbidden"):
            store.inspect("a", 2.0)
        one, _ = take(store)
        assert isinstance(store.acquire(claim(), True, 2.0), Queued)
        assert store.release(one, 2.0) == RELEASED


@pytest.mark.parametrize("forbidden", ["ZADD", "HSET", "PEXPIREAT"])
def test_a_command_that_a_script_lacks_is_named_and_nothing_is_held(forbidden, nothing_held):
    with RedisServer(rename_command=[f'{forbidden} ""']) as server, lockkit.connect(server.url()) as client:
        with pytest.raises(PermissionDenied, match="renamed or forbidden"):
            client.lock("a").try_acquire()
        if forbidden != "ZADD":  # else not even the tombstone can be left
            assert nothing_held(server)


@pytest.mark.parametrize(
    "options",
    [{"user": ["locker on >secret ~* &* +@all -subscribe"]}, {"rename_command": ['SUBSCRIBE ""']}],
    ids=["forbidden", "renamed"],
)
def test_without_subscribe_a_warning_says_so_once(caplog, options):
    with RedisServer(**options) as server, caplog.at_level(logging.WARNING):
        url = server.url(user="locker", password="secret") if "user" in options else server.url()
        with lockkit.connect(url) as client, lockkit.connect(url) as other:
            assert {found.check: found.severity for found in client.check()}["rights"] == "warning"
            held = client.lock("a").acquire()
            threading.Timer(0.2, held.release).start()
            other.lock("a").acquire(timeout=10).release()
    until(lambda: "ask every two seconds" in caplog.text)
    assert caplog.text.count("ask every two seconds") == 1


# -- the way to the server


def test_a_resolver_that_hangs_costs_the_budget_and_not_more(monkeypatch, server):
    hangs = threading.Event()
    resolve = socket.getaddrinfo

    def slow(host, *args, **options):
        if host == "redis.example":
            hangs.wait(20)
        return resolve(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    began = time.monotonic()
    try:
        with pytest.raises(Refused, match="no connection within"):
            open_store("redis://redis.example", OpenOptions())
        assert time.monotonic() - began < 10  # the machine may be busy
    finally:
        hangs.set()


def test_a_certificate_is_checked_against_the_host():
    for url in ("rediss://host", "redis+sentinel://host/kit?tls=yes"):
        tls = RedisStore(parse(url), OpenOptions()).tls
        assert tls.check_hostname
        assert tls.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    "url, says",
    [
        ("redis://a..b:1", "not a host"),
        (f"redis://{'a' * 300}:1", "not a host"),
        ("redis://hunter2@host", "password without its colon"),
        ("redis://host/\u0663", "whole number"),
    ],
)
def test_more_urls_that_are_refused(url, says):
    with pytest.raises(lockkit.ConfigError, match=says) as told:
        parse(url)
    assert "hunter2" not in str(told.value)


def test_a_slow_server_does_not_stretch_a_row_of_answers(server, monkeypatch):
    """Each piece of an answer comes soon enough; all of them do not."""
    store = open_store(server.url(), OpenOptions())
    _, line = store.store.connect(2.0)
    ours, theirs = socket.socketpair()
    line._socket.close()
    line._socket = ours
    over = threading.Event()

    def drip():
        with contextlib.suppress(OSError):
            for byte in b"+" + b"x" * 100:
                theirs.sendall(bytes([byte]))
                if over.wait(0.05):
                    return

    thread = threading.Thread(target=drip)
    thread.start()
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        line.exchange(b"PING\r\n", time.monotonic() + 0.3, 1)
    assert time.monotonic() - began < 4.0  # the whole answer takes 5 s
    over.set()
    thread.join()
    for end in (ours, theirs):
        end.close()
    store.close()


def test_servers_reckon_each_with_its_own_clock():
    from lockkit.lib.clock import SYSTEM

    one, two = (Server(parse("redis://host"), "x", SYSTEM) for _ in range(2))
    one.heard(1_000_000)
    assert abs(one.reckoned(SYSTEM.now()) - 1_000_000) < 10_000
    assert abs(two.reckoned(SYSTEM.now()) - SYSTEM.wall() * 1000) < 10_000


def test_connecting_and_asking_share_one_budget(server, monkeypatch):
    store = open_store(server.url(), OpenOptions())
    (node,) = store.store.servers()
    pool = store.store.performer._pools[node]
    monkeypatch.setattr(pool, "at_hand", lambda: None)
    monkeypatch.setattr(pool, "take", lambda budget: time.sleep(0.3) or store.store.connect(2.0)[1])
    with pytest.raises(Unknown, match="timed out"):
        store.store.call(node, pack("PING"), 0.2)
    monkeypatch.undo()
    assert store.store.call(node, pack("PING"), 2.0) == b"PONG"
    store.close()


def test_connections_that_a_crowd_needed_are_closed_when_they_are_not_used_any_more(server, monkeypatch):
    monkeypatch.setattr("lockkit.store.connections._SURPLUS", 0.05)
    store = open_store(server.url(), OpenOptions())
    (node,) = store.store.servers()
    pool = store.store.performer._pools[node]
    for line in [store.store.connect(2.0)[1] for _ in range(5)]:
        pool.keep(line)
    until(lambda: len(pool._free) == 2)
    assert store.store.call(node, pack("PING"), 2.0) == b"PONG"
    store.close()


def test_a_name_that_cannot_be_resolved_is_told_and_an_interrupt_is_an_interrupt(monkeypatch, server):
    with pytest.raises(Refused, match="cannot reach"):
        open_store("redis://no.such.host.invalid", OpenOptions())

    def interrupted(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("socket.socket.connect", interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_store(f"redis://localhost:{server.port}", OpenOptions())


# -- what a map of slots may say


def mapped(cluster, monkeypatch, **maps):
    """A Cluster of which some nodes answer CLUSTER SLOTS with something else."""
    exchange = Connection.exchange

    def spied(self, packed, end, replies):
        answers = exchange(self, packed, end, replies)
        if b"SLOTS" in packed:
            return (maps.get(f"p{self._socket.getpeername()[1]}", answers[0]),)
        return answers

    monkeypatch.setattr(Connection, "exchange", spied)


def test_a_node_that_was_taken_out_and_still_answers_is_not_believed(cluster, monkeypatch):
    with lockkit.connect(cluster.url()) as client:
        lease = client.lock("a").acquire()
        store = client.driver().backend.store
        mapped(cluster, monkeypatch, **{f"p{cluster.nodes[0].port}": []})
        store.perform(store.topology.read(time.monotonic() + 2.0))
        assert None not in store.topology._owners
        assert lease.confirm() is None
        lease.release()


def test_a_cluster_of_which_no_node_has_slots_is_told(cluster, monkeypatch):
    mapped(cluster, monkeypatch, **{f"p{node.port}": [] for node in cluster.nodes})
    with pytest.raises(Refused, match="no node that answers has any slots"):
        open_store(cluster.url(), OpenOptions())


def test_a_slot_that_nobody_has_costs_its_own_names_only(cluster, places):
    (there, *_), (elsewhere, *_) = places
    store = open_store(cluster.url(), OpenOptions())
    beats = [(each, store.acquire(each, True, 2.0).fence) for each in (claim(there), claim(elsewhere))]
    owners, slot = (
        store.store.topology._owners,
        cluster.nodes[0].cli("CLUSTER", "KEYSLOT", Keys.of("default", there).queue),
    )
    kept, owners[slot] = owners[slot], None
    states = [each.state for each in store.renew(beats, 2.0)]
    assert states == ["UNKNOWN", "HELD"]
    owners[slot] = kept
    for each, _ in beats:
        store.release(each, 2.0)
    store.close()


def test_when_no_more_threads_can_be_started_the_map_is_read_all_the_same(cluster, monkeypatch):
    def refused(self):
        raise RuntimeError("can't start new thread")

    store = open_store(cluster.url(), OpenOptions())
    topology = store.store.topology
    topology._owners = [None] * 16384
    topology.stale, topology._read_at = True, 0.0
    monkeypatch.setattr(threading.Thread, "start", refused)
    assert store.store.perform(store.store.find(Keys.of("default", "a").queue))
    assert not topology._reading
    monkeypatch.undo()
    store.close()


def test_a_node_that_says_that_the_cluster_is_down_makes_others_be_asked(cluster):
    import redis.exceptions as theirs

    store = open_store(cluster.url(), OpenOptions())
    topology = store.store.topology
    node = topology.servers()[0]
    node.trouble(theirs.ClusterDownError("Hash slot not served", status_code="CLUSTERDOWN"))
    assert topology.stale
    assert node in topology._troubled
    store.close()
