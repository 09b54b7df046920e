"""The smallest rights with which the Redis store works, as in the docs, and the errors with fewer rights."""

from __future__ import annotations

import contextlib
import re
import threading

import pytest

pytest.importorskip("redis")

import lockkit
from lockkit.errors import PermissionDenied
from lockkit.store.spi import Busy, Granted, OpenOptions, Queued, Refused, Unknown
from lockkit.testing.claims import claim
from lockkit.testing.processes import PATIENCE, until
from lockkit.values.names import claim_id
from lockkit_redis.backend import open_store
from support.observers import command_line
from support.servers.redis import RedisServer

WRITER = (
    "user locker on >secret resetkeys ~lockkit:default:* resetchannels &lockkit:default:wake:* -@all"
    " +ping +time +client|setname +evalsha +eval +subscribe +publish +multi +exec"
    " +get +set +del +exists +pexpire +pexpireat +pttl +hget +hmget +hset +hdel +hgetall"
    " +zadd +zrem +zscore +zrank +zrange +zrangebyscore +zremrangebyscore"
)
"""Add ``+info`` for ``lockkit doctor``, ``+scan`` for ``names(deep=True)``, ``+wait`` for ``min_replicas``,
``+select`` for a database other than 0, ``+role`` behind Sentinel."""
OBSERVER = (
    "user watcher on >secret resetkeys %R~lockkit:default:* resetchannels -@all"
    " +ping +time +client|setname +multi +exec +get +hgetall +zrange"
)


def commands(line):
    return [word[1:] for word in line.split() if word.startswith("+")]


@pytest.fixture(scope="module")
def server():
    lines = [line.removeprefix("user ") for line in (WRITER, OBSERVER)]
    with RedisServer(user=lines) as server:
        yield server


@pytest.fixture
def url(server):
    server.cli("FLUSHALL")
    server.cli("ACL", "SETUSER", *WRITER.split()[1:])
    server.cli("ACL", "SETUSER", *OBSERVER.split()[1:])
    return server.url(user="locker", password="secret")


@pytest.fixture
def observer_url(url, server):
    return server.url(user="watcher", password="secret")


def everything(url, clock=None):
    """All that a store does."""
    with contextlib.closing(open_store(url, OpenOptions())) as store:
        one, other, third = claim(ttl=20, min_hold=0.01), claim(), claim()
        granted = store.acquire(one, True, 2.0)
        assert isinstance(granted, Granted)
        queued = store.acquire(other, True, 2.0)
        assert isinstance(queued, Queued)
        assert isinstance(store.acquire(third._replace(wait=False), True, 2.0), Busy)
        woken = threading.Event()
        store.watch("a", queued.blockers, woken.set, other)
        states = [each.state for each in store.renew([(one, granted.fence), (other, None)], 2.0)]
        assert states == ["HELD", "WAITING"]
        assert store.extend(one, granted.fence, 30, 2.0).state == "HELD"
        assert store.annotate("a", claim_id(one.token), {"x": 1}, 2.0)
        assert store.resize("a", 1, 2.0) == 2
        assert store.put_record("a", {"x": 1}, 0 if store.record("a", 2.0) is None else 1, 2.0)
        assert store.names("", 2.0) == ["a"]
        store.release(one, 2.0)
        store.evict("a", claim_id(one.token), 2.0, now=True)
        assert isinstance(store.acquire(other, False, 2.0), Granted)
        assert woken.wait(PATIENCE)
        store.abandon(other, 2.0)
        store.emergency_release(third, 2.0)
        alone, behind = claim("b"), claim("b")
        store.acquire(alone, True, 2.0)
        store.acquire(behind, True, 2.0)
        store.release(alone, 2.0)
        assert isinstance(store.acquire(behind, False, 2.0), Granted)
        store.release(behind, 2.0)
        assert store.inspect("a", 2.0).claims == ()


def looking(url):
    """All that an observer's store does."""
    with contextlib.closing(open_store(url, OpenOptions())) as store:
        assert [each.state for each in store.inspect("a", 2.0).claims] == ["HELD"]
        assert store.names("", 2.0) == ["a"]
        assert store.record("a", 2.0) is None


def test_with_the_writers_rights_everything_works(url):
    everything(url)


@pytest.mark.parametrize("right", [each for each in commands(WRITER) if each != "subscribe"])
def test_without_any_one_of_the_writers_rights_something_is_denied_and_the_right_is_named(url, server, right):
    server.cli("SCRIPT", "FLUSH")
    server.cli("ACL", "SETUSER", "locker", f"-{right}")

    with pytest.raises(
        (Refused, Unknown)
    ) as denied:  # Unknown: in the middle of a script that is not an acquire
        everything(url)

    assert isinstance(denied.value.error, PermissionDenied)
    assert isinstance(denied.value, Unknown) or not denied.value.retry
    assert f"'{right}'" in str(denied.value)
    assert "secret" not in str(denied.value)


@pytest.mark.parametrize("right", ["time", "exists", "get", "set", "hset", "zadd", "pexpireat"])
def test_an_acquire_that_is_stopped_half_way_holds_nothing(url, server, right):
    server.cli("ACL", "SETUSER", "locker", f"-{right}")
    with lockkit.connect(url) as client, pytest.raises(PermissionDenied, match=f"'{right}'"):
        client.lock("a").try_acquire()
    server.cli("ACL", "SETUSER", "locker", f"+{right}")
    kinds = {key.decode().rpartition(":")[2] for key in server.cli("KEYS", "*")}
    assert kinds <= {"f", "g", "names"}


def test_a_release_that_is_stopped_half_way_is_asked_for_again_and_not_called_lost(url, server):
    with lockkit.connect(url) as client, lockkit.connect(url) as other:
        held = client.lock("a").acquire(timeout=0)
        waiter = threading.Thread(target=lambda: other.lock("a").acquire(timeout=10).release())
        waiter.start()
        until(lambda: len(client.inspect("a").claims) == 2, "the waiter stands in line")
        server.cli("ACL", "SETUSER", "locker", "-publish")
        report = held.release()
        waiter.join()
        assert report.outcome == "RELEASED"


@pytest.mark.parametrize("right", ["hdel", "zrem"])
def test_who_comes_next_is_not_stuck_behind_a_release_that_was_stopped_half_way(url, server, right):
    lacking = WRITER.replace("locker", "poor").split()[1:]
    server.cli("ACL", "SETUSER", *lacking, f"-{right}")
    with (
        lockkit.connect(server.url(user="poor", password="secret")) as poor,
        lockkit.connect(url) as client,
    ):
        held = poor.lock("a", ttl=3).acquire()
        waiter = threading.Thread(target=lambda: client.lock("a").acquire(timeout=20).release())
        waiter.start()
        until(lambda: len(client.inspect("a").claims) == 2, "the waiter stands in line")
        report = held.release()
        assert f"'{right}'" in str(report.errors)
        waiter.join(10)
        assert not waiter.is_alive()


def test_an_acquire_that_can_not_even_be_undone_is_not_tried_again(url, server):
    server.cli("ACL", "SETUSER", "locker", "-zadd", "-zrem")
    before = server.commands()["evalsha"]["calls"] if "evalsha" in server.commands() else 0
    with lockkit.connect(url) as client, pytest.raises(PermissionDenied):
        client.lock("a").acquire(timeout=30)
    assert int(server.commands()["evalsha"]["calls"]) - int(before) < 12


def test_without_the_right_to_subscribe_waiters_poll(url, server):
    server.cli("ACL", "SETUSER", "locker", "-subscribe")
    with lockkit.connect(url) as client:
        held = client.lock("a").acquire(timeout=0)
        threading.Timer(0.2, held.release).start()
        other = lockkit.connect(url)
        with contextlib.closing(other):
            other.lock("a").acquire(timeout=6).release()


@pytest.mark.parametrize(
    "rights", [["resetkeys", "~other:*"], ["resetchannels", "&other"]], ids=["keys", "channels"]
)
def test_without_the_right_to_the_namespace_an_acquire_is_denied(url, server, rights):
    server.cli("ACL", "SETUSER", "locker", *rights)
    if rights[0] == "resetkeys":
        with (
            pytest.raises(PermissionDenied, match=r"~lockkit:default:\* gives it") as told,
            lockkit.connect(url) as client,
        ):
            client.lock("a").acquire(timeout=0)
        assert "lockkit docs redis-acl" in told.value.hint
    else:
        with pytest.raises(Unknown) as denied:
            everything(url)
        assert isinstance(denied.value.error, PermissionDenied)
        assert "&lockkit:default:wake:* gives it" in str(denied.value)


def test_the_writer_may_touch_nothing_else_and_is_told_what_it_lacks(url, server):
    with contextlib.closing(open_store(url, OpenOptions(namespace="other"))) as store:
        with pytest.raises(Refused) as denied:
            store.acquire(claim(), True, 2.0)
        rights = next(each for each in store.check(2.0) if each.check == "rights")
    assert server.cli("KEYS", "*") == []
    assert rights.severity == "error"
    for said in (str(denied.value), f"{rights.message} ({rights.hint})"):
        assert "the user has no right to lockkit:other:*" in said
    line = re.search(r"ACL (SETUSER NAME \S+)", rights.hint)[1]
    server.cli("ACL", *line.replace("NAME", "locker").split())
    with contextlib.closing(open_store(url, OpenOptions(namespace="other"))) as store:
        (heard,) = (each for each in store.check(2.0) if each.check == "rights")
    assert "no right to lockkit:other:wake:*" in heard.message


@pytest.fixture
def held(url):
    with lockkit.connect(url) as client:
        lease = client.lock("a").acquire(timeout=0)
        yield lease
        lease.release()


def test_with_the_observers_rights_one_can_look(held, observer_url):
    looking(observer_url)


@pytest.mark.parametrize("right", commands(OBSERVER))
def test_without_any_one_of_the_observers_rights_one_cannot_look(held, observer_url, server, right):
    server.cli("ACL", "SETUSER", "watcher", f"-{right}")

    with pytest.raises(Refused) as refused:
        looking(observer_url)

    assert isinstance(refused.value.error, PermissionDenied)
    assert f"'{right}'" in str(refused.value)


def test_an_observer_sees_the_status_and_cannot_lock(held, observer_url, server, tmp_path):
    keys = sorted(server.cli("KEYS", "*"))
    for line in (["status"], ["status", "a"]):
        done = command_line(observer_url, tmp_path, *line)
        assert (done.returncode, done.stderr) == (0, "")
        assert "a" in done.stdout
        assert "secret" not in done.stdout

    with lockkit.connect(observer_url) as client, pytest.raises(PermissionDenied, match="'evalsha'"):
        client.lock("b").acquire(timeout=1)
    assert sorted(server.cli("KEYS", "*")) == keys
