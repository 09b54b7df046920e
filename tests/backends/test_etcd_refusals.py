"""Refusals of etcd: each is told with its reason and what to do next, and holds nothing."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import lockkit
from lockkit.errors import BackendUnavailable, IncompatibleLayout, PermissionDenied
from lockkit.facts import Finding
from lockkit.store.spi import RELEASED, OpenOptions, Refused, Unknown
from lockkit.testing.claims import BUDGET, claim, queue, renew, states, take
from lockkit.testing.processes import free_port, installed, until
from lockkit.testing.troubles import SECRET, both_ways, trouble
from lockkit.values.names import claim_id
from lockkit_etcd import failures, health
from lockkit_etcd.backend import open_store
from lockkit_etcd.transport import Header, Put, Status
from support.etcd_transports import SCHEMES, asked
from support.servers.etcd import EtcdServer
from support.servers.etcd_gateway import EtcdRefused, EtcdUser, covered
from support.servers.started import started

pytestmark = pytest.mark.skipif(not installed("etcd"), reason="make servers")


server = started(EtcdServer)


@pytest.fixture
def store(server):
    with contextlib.closing(open_store(server.url(), OpenOptions())) as store:
        yield store
    server.call("kv/deleterange", {"key": b"\0", "range_end": b"\0"})


@both_ways
def test_nobody_there_is_told(way):
    error = trouble(f"etcd://127.0.0.1:{free_port()}", way)
    assert isinstance(error, BackendUnavailable)
    assert "is it running?" in str(error)


@both_ways
def test_a_wrong_password_is_told(way):
    with EtcdServer(users=[EtcdUser("locker", "right", {"": "READWRITE"})]) as server:
        error = trouble(server.url("locker", SECRET), way)
        assert isinstance(error, PermissionDenied)
        assert "user name or password is wrong" in str(error)
        error = trouble(server.url(), way)
        assert isinstance(error, PermissionDenied)
        assert "etcd://user:password@host" in str(error)


@both_ways
def test_a_server_that_stands_still_is_told_in_time(server, way):
    server.pause()
    try:
        error = trouble(server.url(), way)
    finally:
        server.resume()
    assert "port for clients" in error.hint


class _NotFound(BaseHTTPRequestHandler):
    def do_POST(self):
        self.send_error(404)

    def log_message(self, *_):
        pass


@both_ways
def test_a_server_that_is_no_etcd_is_told(way):
    with ThreadingHTTPServer(("127.0.0.1", 0), _NotFound) as other:
        threading.Thread(target=other.serve_forever).start()
        try:
            error = trouble(f"etcd://127.0.0.1:{other.server_port}", way)
        finally:
            other.shutdown()
    assert "HTTP 404" in error.message
    assert "is it etcd's port for clients (2379)?" in error.hint


@both_ways
def test_the_port_for_the_other_members_is_told(server, way):
    error = trouble(f"etcd://127.0.0.1:{server.place.peer_port}", way)
    assert "is it etcd's port for clients (2379)?" in error.hint


# -- a full database


@pytest.fixture(scope="module")
def full():
    """A server whose database is full, with a store that held a lock before."""
    with (
        EtcdServer(quota_backend_bytes=1 << 20) as server,
        contextlib.closing(open_store(server.url(), OpenOptions())) as store,
    ):
        held = [take(store, f"held-{at}", ttl=60) for at in range(2)]
        waiter = queue(store, "held-0")
        until(lambda: is_full(server), "it is full", 30.0)
        yield server, store, held, waiter


def is_full(server):
    try:
        server.call("kv/put", {"key": b"filler", "value": b"x" * 500_000})
    except EtcdRefused:
        return server.alarms()
    return False


@both_ways
def test_a_full_database_is_told(full, way):
    server, *_ = full
    error = trouble(server.url(), way)
    assert isinstance(error, BackendUnavailable)
    assert "NOSPACE" in str(error)
    assert "alarm disarm" in str(error)


def test_in_a_full_database_holds_are_renewed_and_can_be_released(full):
    _, store, held, waiter = full
    answers = store.renew([*held, (waiter, None)], BUDGET)
    assert [each.state for each in answers] == ["HELD", "HELD", "WAITING"]
    assert store.release(held[0][0], BUDGET) == RELEASED
    with pytest.raises(Unknown) as told:
        store.acquire(waiter, False, BUDGET)
    assert not told.value.retry
    assert store.abandon(waiter, BUDGET) == RELEASED
    assert states(store, "held-0") == []


def test_in_a_full_database_an_acquire_leaves_nothing_once_it_is_abandoned(full):
    _, store, *_ = full
    known = len(store.store.entries)
    one = claim("b")
    with pytest.raises(Unknown) as told:
        store.acquire(one, True, BUDGET)
    assert not told.value.retry
    store.abandon(one, BUDGET)
    assert states(store, "b") == []
    assert len(store.store.entries) == known


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_write_that_is_answered_with_no_space_and_stored_all_the_same_leaves_nothing(server, scheme):
    """The write that uses the last room up is stored, and answered like one that is refused."""
    url = scheme + server.url().removeprefix("etcd")
    with lockkit.connect(url) as client, lockkit.connect(server.url()) as other:
        client.lock("warm", ttl=60).acquire(timeout=2).release()
        transport = asked(client.driver().backend)
        real, puts = transport.txn, []

        def crossing(request, budget):
            answer = real(request, budget)
            if any(type(op) is Put for op in request.then) and answer.succeeded:
                puts.extend(op.lease for op in request.then if type(op) is Put)
                raise failures.said(8, "etcdserver: mvcc: database space exceeded", "here")
            return answer

        transport.txn = crossing
        with pytest.raises(BackendUnavailable, match="NOSPACE"):
            client.lock("crossed", ttl=60).acquire(timeout=5)
        transport.txn = real
        assert len(puts) == 1, "it was tried again, in a database without room"
        assert other.inspect("crossed").claims == (), "a claim that nobody holds is left"
        leases = set(map(int, server.leases()))
        assert puts[0] not in leases, "its lease may still get a key"
        other.lock("crossed", ttl=60).try_acquire().release()


def test_what_is_refused_while_the_room_is_used_up_leaves_no_claim(tmp_path):
    """Writes race for the last room, on a real server: some of those that are refused are stored."""
    with (
        EtcdServer(quota_backend_bytes=2 << 20) as server,
        contextlib.ExitStack() as clients,
    ):
        refused = []

        def fill(at):
            for number in itertools.count():
                try:
                    server.call("kv/put", {"key": f"f/{at}-{number}".encode(), "value": b"x" * 15_000})
                except EtcdRefused:
                    return

        def lock(client, at):
            for number in itertools.count():
                try:
                    client.lock(f"n{at}-{number}", ttl=60).acquire(timeout=3).release()
                except BackendUnavailable as error:
                    refused.append(error)
                    return

        some = [clients.enter_context(lockkit.connect(server.url())) for _ in range(2)]
        threads = [threading.Thread(target=fill, args=(at,)) for at in range(4)]
        threads += [threading.Thread(target=lock, args=(some[at % 2], at)) for at in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(refused) == 12
        assert all("NOSPACE" in str(error) for error in refused)

        def claims():
            return server.call("kv/range", {**covered("lockkit/default/q/"), "keys_only": True}).get(
                "kvs", []
            )

        until(lambda: claims() == [], "nothing is left that nobody holds")


def test_the_doctor_names_the_alarm(full):
    server, store, *_ = full
    found = {each.check: each for each in store.check(BUDGET)}
    assert found["alarm"].severity == "error"
    assert "NOSPACE" in found["alarm"].message
    warned = []
    open_store(server.url(), OpenOptions(warn=warned.append)).close()
    assert any("NOSPACE" in each for each in warned)
    with pytest.raises(Refused, match="strict"):
        open_store(server.url(), OpenOptions(strict=True))


# -- what others wrote


def test_a_strangers_key_in_a_queue_is_told_and_costs_only_that_queue(store, server):
    good, fence = take(store, "good")
    bad, other = take(store, "bad")
    waiter = queue(store, "bad")
    server.call("kv/put", {"key": b"lockkit/default/q/bad/stranger", "value": b"hello"})
    strangers = [
        each for each in store.inspect("bad", BUDGET).holders if each.claim_id != claim_id(bad.token)
    ]
    assert ["not lockkit's" in each.evidence for each in strangers] == [True]
    answers = store.renew([(good, fence), (bad, other), (waiter, None)], BUDGET)
    assert [each.state for each in answers] == ["HELD", "HELD", "WAITING"], "its blocker stands"
    assert store.release(bad, BUDGET) == RELEASED
    assert renew(store, waiter).state == "UNKNOWN"
    assert store.abandon(waiter, BUDGET) == RELEASED


def test_what_a_newer_version_wrote_is_left_alone(store, server):
    value = {
        "v": 9,
        "min_reader": 9,
        "state": "HELD",
        "weight": 1,
        "capacity": 1,
        "owner": {"host": "new-host", "version": "9.1"},
    }
    server.call("kv/put", {"key": b"lockkit/default/q/a/" + b"0" * 32, "value": json.dumps(value).encode()})
    with pytest.raises(Refused) as told:
        store.acquire(claim(), True, BUDGET)
    assert isinstance(told.value.error, IncompatibleLayout)
    assert "new-host" in str(told.value)
    assert "9.1" in str(told.value)


def test_unknown_fields_are_kept(store, server):
    one, fence = take(store, note={"a": 1})
    key = store.store.entries[one.token].key
    kv = server.call("kv/range", {"key": key})["kvs"][0]
    import base64

    value = json.loads(base64.b64decode(kv["value"])) | {"later": [1]}
    server.call("kv/put", {"key": key, "value": json.dumps(value).encode(), "ignore_lease": True})
    store.resize("a", 2, BUDGET)
    kv = server.call("kv/range", {"key": key})["kvs"][0]
    assert json.loads(base64.b64decode(kv["value"]))["later"] == [1]
    assert renew(store, one, fence).state == "HELD"


# -- the table


@pytest.mark.parametrize(
    "code,message,kind",
    [
        (8, "etcdserver: too many requests", Refused),
        (14, "etcdserver: no leader", failures.Elsewhere),
        (16, "etcdserver: invalid auth token", failures.TokenExpired),
        (7, "etcdserver: permission denied", failures.Forbidden),
    ],
)
def test_what_is_listed_was_not_done(code, message, kind):
    assert type(failures.said(code, message, "here")) is kind


@pytest.mark.parametrize(
    "code,message",
    [
        (8, "etcdserver: mvcc: database space exceeded"),
        (14, "etcdserver: request timed out"),
        (14, "etcdserver: request timed out, possibly due to previous leader failure"),
        (14, "etcdserver: leader changed"),
        (14, "etcdserver: server stopped"),
        (4, "context deadline exceeded"),
        (13, "internal"),
        (7, "something new"),
        (-1, ""),
    ],
)
def test_what_is_not_listed_may_have_been_done(code, message):
    assert isinstance(failures.said(code, message, "here"), lockkit.store.spi.Unknown)


@pytest.mark.parametrize(
    "version,severity",
    [
        ("3.5.16", "ok"),
        ("3.6.1", "ok"),
        ("3.5.12", "warning"),
        ("3.5.1", "error"),
        ("3.4.31", "ok"),
        ("3.4.30", "warning"),
        ("3.3.27", "error"),
    ],
)
def test_the_doctor_knows_versions(version, severity):
    status = Status(Header(1, 1), version, 1, 1, endpoint="here")
    found = [each for each in health.known_bad([status]) if each.check == "version"]
    assert [each.severity for each in found] == ([] if severity == "ok" else [severity])


def test_the_doctor_says_which_transport_is_in_use(store, server):
    found = store.check(BUDGET)
    assert found[0] == Finding("transport", "ok", f"JSON gateway to {server.url()}")
