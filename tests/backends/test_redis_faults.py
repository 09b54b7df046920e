"""The Redis store on bad addresses, bad servers and during failover: each trouble is told clearly, in time, and holds nothing."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
import traceback

import pytest

pytest.importorskip("redis")

import redis

import lockkit
from lockkit.errors import BackendUnavailable, ConfigError, LockkitError, PermissionDenied
from lockkit.names import new_token
from lockkit.spi import RELEASED, Claim, Granted, OpenOptions, Queued, Refused, Terms, Unknown
from lockkit.testing.servers.certificates import Certificates
from lockkit.testing.servers.processes import free_port, until
from lockkit.testing.servers.redis import RedisServer
from lockkit.testing.servers.redis_groups import RedisSentinels
from lockkit_redis.address import parse
from lockkit_redis.backend import open_store
from lockkit_redis.line import pack
from lockkit_redis.wire import Wire

IN_TIME = 2.5
SECRET = "hunter2"


def claim(name="a", **terms):
    return Claim(new_token(), Terms(name, **terms))


def take(store, *args, **kwargs):
    one = claim(*args, **kwargs)
    answer = store.acquire(one, True, 2.0)
    assert isinstance(answer, Granted), answer
    return one, answer.fence


def through_the_store(url):
    store = open_store(url, OpenOptions())
    try:
        store.acquire(claim(), True, 2.0)
    finally:
        store.close()


def through_a_client(url):
    with lockkit.connect(url) as client:
        client.lock("a").acquire(timeout=0)


def told(error):
    """Everything that somebody may print of an error."""
    texts = traceback.format_exception(error)
    while error is not None:
        texts += [str(error), repr(error), repr(error.args)]
        if isinstance(error, (Refused, Unknown)):
            texts += [str(error.error), repr(error.error)]
        error = error.__cause__ or error.__context__
    return "\n".join(texts)


def trouble(url, way=through_the_store):
    """The error that a user is told, which came in time and does not tell the password."""
    began = time.monotonic()
    with pytest.raises((LockkitError, Refused, Unknown)) as caught:
        way(url)
    assert time.monotonic() - began < IN_TIME
    assert SECRET not in told(caught.value)
    error = caught.value
    return error if isinstance(error, LockkitError) else error.error


both_ways = pytest.mark.parametrize("way", [through_the_store, through_a_client])


@pytest.fixture(scope="module")
def server():
    with RedisServer(
        databases=4, repl_diskless_sync_delay=0, user=[f"one on >{SECRET} ~* &* +@all", f"off off >{SECRET}"]
    ) as server:
        yield server


@pytest.fixture(scope="module")
def guarded():
    with RedisServer(requirepass=SECRET, login=("default", SECRET)) as server:
        yield server


@pytest.fixture(scope="module")
def tls():
    with RedisServer(tls=True) as server:
        yield server


def role(server):
    """What it is; a sentinel that changes it cuts every connection."""
    with contextlib.suppress(redis.ConnectionError), server.connect() as client:
        return client.execute_command("ROLE")[0]


def nothing_held(server):
    return not [key for key in server.cli("KEYS", "*") if key.endswith((b":q", b":d", b":c"))]


# -- who may come in -----------------------------------------------------------------------------------------


@both_ways
@pytest.mark.parametrize(
    "login, says",
    [
        ({"user": "one", "password": f"x{SECRET}"}, "user name or password is wrong"),
        ({"user": "nobody", "password": SECRET}, "user name or password is wrong"),
        ({"user": "off", "password": SECRET}, "user name or password is wrong"),
        ({"password": SECRET}, "it has none"),
    ],
    ids=["wrong password", "unknown user", "user that is off", "needless password"],
)
def test_a_bad_login_is_told(server, way, login, says):
    error = trouble(server.url(**login), way)

    assert isinstance(error, PermissionDenied)
    assert says in str(error)
    assert nothing_held(server)


@both_ways
def test_a_missing_password_is_told_as_missing(guarded, way):
    error = trouble(guarded.url(), way)

    assert isinstance(error, PermissionDenied)
    assert "it wants a password" in str(error)
    with contextlib.closing(open_store(guarded.url(password=SECRET), OpenOptions())) as store:
        assert SECRET not in repr(store)
        store.release(take(store)[0], 2.0)


@both_ways
def test_a_database_that_does_not_exist_is_told(server, way):
    assert "no such database" in str(trouble(server.url(db=4), way))
    assert nothing_held(server)


# -- what cannot be reached ----------------------------------------------------------------------------------


@both_ways
def test_a_closed_port_is_told(way):
    error = trouble(f"redis://:{SECRET}@127.0.0.1:{free_port()}/0", way)

    assert isinstance(error, BackendUnavailable)
    assert re.search(r"cannot reach redis://.*refused", str(error))


@both_ways
def test_a_server_that_answers_nothing_is_told(way):
    with RedisServer() as server:
        server.pause()  # it still accepts connections

        error = trouble(server.url(password=SECRET), way)

        assert "cannot reach" in str(error)
        server.resume()
        assert nothing_held(server)


def test_a_server_that_stops_answering_is_told_and_what_it_was_sent_holds_nothing():
    with RedisServer() as server, contextlib.closing(open_store(server.url(), OpenOptions())) as store:
        warm, _ = take(store, "warm")
        store.release(warm, 2.0)
        one = claim()
        server.pause()
        began = time.monotonic()
        with pytest.raises(Unknown):
            store.acquire(one, True, 2.0)
        assert time.monotonic() - began < IN_TIME
        server.resume()

        store.abandon(one, 2.0)

        assert nothing_held(server)


class Slow:
    """A server that takes its time over every answer."""

    def __init__(self, server, pause):
        self._server, self._pause = server, pause
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/1"
        self._threads = [threading.Thread(target=self._run, daemon=True)]
        self._threads[0].start()

    def _run(self):
        with contextlib.suppress(OSError):
            while True:
                there, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(there,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, there):
        with (
            contextlib.suppress(OSError),
            there,
            socket.create_connection((self._server.host, self._server.port)) as here,
        ):
            here.settimeout(0.05)
            while request := there.recv(65536):
                here.sendall(request)
                time.sleep(self._pause)
                with contextlib.suppress(TimeoutError):
                    while answer := here.recv(65536):
                        there.sendall(answer)

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)


def test_the_whole_login_takes_a_slow_server_one_answer(server):
    with contextlib.closing(Slow(server, 0.8)) as slow:
        wire = Wire(parse(slow.url), "slow", lambda _: None)
        began = time.monotonic()
        wire.connect(2.0).reset()
        assert time.monotonic() - began < 2 * 0.8


def test_a_server_that_is_too_slow_is_told_in_time(server):
    with contextlib.closing(Slow(server, 4.0)) as slow:
        assert "cannot reach" in str(trouble(slow.url))


def test_no_connection_to_a_demoted_primary_is_used_again_whatever_call_met_it():
    """A single command and one in a row: the first acquire of a name, a renewal."""
    with RedisServer() as server:
        wire = Wire(parse(server.url()), "demoted", lambda _: None)
        for send in (
            lambda packed: wire.call(packed, 2.0),
            lambda packed: wire.row(packed + pack("PING"), 2.0, 2),
        ):
            wire.call(pack("SET", "a", "b"), 2.0)
            assert len(wire._free) == 1
            server.cli("REPLICAOF", "127.0.0.1", "1")
            with contextlib.suppress(Refused):
                send(pack("SET", "a", "b"))
            assert wire._free == []
            server.cli("REPLICAOF", "NO", "ONE")
        wire.close()


# -- encryption ----------------------------------------------------------------------------------------------


def secure(tls, **options):
    files = {
        "ca_file": tls.certificates.ca,
        "cert_file": tls.certificates.client,
        "key_file": tls.certificates.client_key,
    }
    chosen = {key: value for key, value in (files | options).items() if value is not None}
    return tls.url() + "?" + "&".join(f"{key}={value}" for key, value in chosen.items())


def test_with_its_certificates_a_lock_can_be_had_over_tls(tls):
    with contextlib.closing(open_store(secure(tls), OpenOptions())) as store:
        one, _ = take(store)
        waiting = claim()
        woken = threading.Event()
        store.watch("a", store.acquire(waiting, True, 2.0).blockers, woken.set, waiting)
        store.release(one, 2.0)
        assert woken.wait(1.0)
        store.release(waiting, 2.0)


@both_ways
def test_an_unencrypted_url_to_an_encrypted_port_is_told(tls, way):
    assert "TLS" in str(trouble(f"redis://:{SECRET}@{tls.address}/0", way))


@both_ways
def test_an_encrypted_url_to_an_unencrypted_port_is_told(server, way):
    assert "TLS" in str(trouble(f"rediss://:{SECRET}@{server.address}/0", way))


@both_ways
@pytest.mark.parametrize("other", [True, False], ids=["another authority", "none"])
def test_a_certificate_that_is_not_trusted_is_told(tls, way, other, tmp_path):
    ca = Certificates(tmp_path).ca if other else None

    assert "certificate" in str(trouble(secure(tls, ca_file=ca), way)).lower()
    assert nothing_held(tls)


@both_ways
def test_a_missing_client_certificate_is_told(tls, way):
    assert "certificate" in str(trouble(secure(tls, cert_file=None, key_file=None), way)).lower()


# -- what the server will not do -----------------------------------------------------------------------------


@both_ways
def test_a_replica_in_place_of_the_primary_is_told(server, way):
    with RedisServer(replicaof=f"{server.host} {server.port}") as replica:
        until(lambda: b"master_link_status:up" in replica.cli("INFO", "replication"), "in step")

        error = trouble(replica.url(), way)

        assert isinstance(error, BackendUnavailable)
        assert "it is a replica" in str(error)
    assert nothing_held(server)


@both_ways
def test_protected_mode_is_told(way):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; says which address would be used
        except OSError:
            pytest.skip("this machine has no address but 127.0.0.1")
        outside = probe.getsockname()[0]
    with RedisServer(bind=f"127.0.0.1 {outside}", protected_mode="yes") as server:
        assert "protected mode" in str(trouble(f"redis://{outside}:{server.port}/0", way))


@both_ways
def test_a_server_without_memory_is_told_and_holders_keep_their_claims_and_can_release(server, way):
    server.cli("FLUSHALL")
    with contextlib.closing(open_store(server.url(), OpenOptions())) as store:
        held = take(store, "held")
        delayed, _ = take(store, "delayed", min_hold=0.2)
        server.cli("CONFIG", "SET", "maxmemory", "1")
        try:
            error = trouble(server.url(), way)
            assert isinstance(error, BackendUnavailable)
            assert "out of memory" in str(error)
            assert store.inspect("a", 2.0).claims == ()
            assert store.renew([held], 2.0)[0].state == "HELD"
            assert store.release(held[0], 2.0) == RELEASED
            assert store.release(delayed, 2.0) == RELEASED
        finally:
            server.cli("CONFIG", "SET", "maxmemory", "0")


@both_ways
@pytest.mark.parametrize("forbidden", [["EVAL"], ["EVALSHA"], ["EVAL", "EVALSHA"]], ids="+".join)
def test_a_renamed_or_forbidden_command_is_named(way, forbidden):
    with RedisServer(rename_command=[f'{each} ""' for each in forbidden]) as server:
        error = trouble(server.url(), way)

        assert isinstance(error, PermissionDenied)
        assert f"'{forbidden[-1]}'" in str(error)
        assert "local" not in str(error), "half a script tells nobody anything"
        assert nothing_held(server)


def test_a_server_with_as_many_clients_as_it_takes_is_told():
    with RedisServer(maxclients=1) as server:
        server.cli("PING")
        with socket.create_connection((server.host, server.port)):
            assert "as many clients as it takes" in str(trouble(server.url()))


# -- addresses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url, says",
    [
        ("redis://h?database=1", "no such option: database"),
        ("redis://h#1", "no such option"),
        ("redis://h:port", "host and port"),
        ("redis://h:65536", "host and port"),
        ("redis://h:-1", "host and port"),
        ("redis://h/x", "the database must be a whole number"),
        ("redis://h/-1", "the database must be a whole number"),
        ("redis://h/1?db=2", "named twice"),
        ("redis://h?min_replicas=many", "min_replicas must be a whole number"),
        ("redis://h?ca_file=/nowhere", "needs TLS|cannot read"),
        ("rediss://h?ca_file=/nowhere", "cannot read /nowhere"),
        ("redis://[::1", "not a Redis URL"),
        ("unix://h/run/redis.sock", "absolute path"),
        ("redis+sentinel://h1,h2", "which service"),
        ("redis+sentinel://h1,h2/kit?tls=maybe", "tls is yes or no"),
    ],
)
def test_a_url_that_says_what_does_not_exist_is_refused_before_anything_is_sent(url, says):
    with pytest.raises(ConfigError, match=says):
        open_store(url, OpenOptions())


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:{}@h?no=1",
        "redis://u:{}@h:port",
        "redis://:x#{}@h:1/0",
        "redis://:x/{}@h:1/0",
        "redis://:x?{}@h:1/0",
        "redis://:{}#x@h:1/0",
        "redis://:{}/x@h:1/0",
        "redis://:{}?x@h:1/0",
        "redis://:{}:x",
        "redis://u:{}:6379/0",
        "redis://:[{}@h:1/0",
        "redis+sentinel://h/kit?sentinel_password={}&no=1",
        "redis+sentinel://h/kit/x?sentinel_password={}",
        "unix://:{}@/run/redis.sock?no=1",
    ],
)
def test_no_bad_url_tells_its_password(url):
    with pytest.raises(ConfigError) as caught:
        open_store(url.format(SECRET), OpenOptions())

    assert SECRET not in told(caught.value)


def test_a_parsed_address_does_not_show_its_passwords():
    address = parse(f"redis+sentinel://u:{SECRET}@h/kit?sentinel_user=s&sentinel_password={SECRET}")

    assert address.password == SECRET == address.sentinel[1]
    assert SECRET not in repr(address)


# -- replicas and failover -----------------------------------------------------------------------------------


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
def test_with_min_replicas_a_replica_that_does_not_answer_is_no_copy(pair, forgotten):
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


def test_with_min_replicas_a_missing_replica_refuses_a_waiter_whose_turn_has_come(pair):
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
                assert time.monotonic() - began < 5
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


def test_a_connection_to_a_primary_that_was_demoted_grants_nothing_and_the_next_asks_the_new_one():
    with RedisSentinels() as group, contextlib.closing(open_store(group.url(), OpenOptions())) as store:
        one, fence = take(store)
        store.release(one, 2.0)
        old = group.primary
        group.sentinels[0].cli("SENTINEL", "FAILOVER", group.service)
        until(lambda: group.primary is not old, "another primary", 20)
        until(lambda: role(old) == b"slave", "the old one is demoted", 20)

        granted, refusals, began = None, 0, time.monotonic()
        while granted is None and time.monotonic() - began < 5:
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
