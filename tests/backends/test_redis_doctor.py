"""Findings of the doctor about a server where no lock is granted: an error that names the reason."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from importlib.resources import files

import pytest

pytest.importorskip("redis")

import lockkit
from lockkit.cli.main import run
from lockkit.store.spi import OpenOptions
from lockkit.testing.processes import until
from lockkit_redis.backend import open_store
from lockkit_redis.rights import rights
from support.servers.redis import RedisServer
from support.servers.started import started

LUA = {file.name: file.read_text() for file in files("lockkit_redis").joinpath("lua").iterdir()}
CALLED = {
    word
    for name, text in LUA.items()
    if name != "probe.lua"
    for word in re.findall(r"""\bcall\(\s*["'](\w+)""", text)
}
LOOKS = ("MULTI", "HGETALL", "EXEC")
EVERYTHING = "locker on >secret resetkeys ~lockkit:* resetchannels &lockkit:* +@all"


server = started(RedisServer, user=[EVERYTHING])


@pytest.fixture
def url(server):
    server.cli("FLUSHALL")
    server.cli("ACL", "SETUSER", *EVERYTHING.replace("on", "reset on", 1).split())
    return server.url(user="locker", password="secret")


def look(url):
    with lockkit.connect(url) as client:
        return client.check()


def bad(url):
    return {found.check: found for found in look(url) if found.severity == "error"}


@contextlib.contextmanager
def configured(server, **settings):
    """Settings of the server for a while; in their names an underscore stands for a hyphen."""
    names = {name: name.replace("_", "-") for name in settings}
    before = {name: server.cli("CONFIG", "GET", name)[1] for name in names.values()}
    try:
        for setting, value in settings.items():
            server.cli("CONFIG", "SET", names[setting], value)
        yield
    finally:
        for name, value in before.items():
            server.cli("CONFIG", "SET", name, value.decode())


# -- what the server is


def test_full_memory_is_an_error(server, url):
    with configured(server, maxmemory="1"):
        found = bad(url)
    assert set(found) == {"memory"}
    assert "memory is full" in found["memory"].message
    assert "maxmemory" in found["memory"].hint


def test_full_memory_is_seen_without_info_too(server, url):
    server.cli("ACL", "SETUSER", "locker", "-info")
    with configured(server, maxmemory="1"):
        found = bad(url)
    assert "out of memory" in found["scripts"].message


def test_memory_that_is_full_is_no_reason_to_refuse_to_open_it(server, url):
    """A client that comes to evict a lock must be let in; a held lock can be released."""
    with configured(server, maxmemory="1"), lockkit.connect(url, strict=True) as client:
        assert client.names() == []


def test_a_server_that_wants_more_replicas_before_it_writes_is_an_error(server, url):
    with configured(server, min_replicas_to_write="1"):
        found = bad(url)
    assert "min-replicas-to-write" in found["scripts"].message


def test_of_two_things_that_are_wrong_both_are_told(server, url):
    with configured(server, min_replicas_to_write="1", maxmemory="1gb", maxmemory_policy="allkeys-lru"):
        found = bad(url)
    assert set(found) == {"memory", "scripts"}


def test_a_replica_is_told_once(server, url):
    with RedisServer(replicaof=f"{server.host} {server.port}", repl_diskless_sync_delay=0) as replica:
        assert set(bad(replica.url())) == {"role"}


def test_fewer_replicas_than_the_url_asks_for_are_an_error(url):
    found = bad(f"{url}?min_replicas=2")
    assert set(found) == {"failover"}
    assert "min_replicas=2" in found["failover"].message
    assert "no replica" in found["failover"].message


def test_replicas_are_counted_and_compared_with_what_the_url_asks_for(server, url):
    with RedisServer(replicaof=f"{server.host} {server.port}", repl_diskless_sync_delay=0):
        until(lambda: b"connected_slaves:1" in server.cli("INFO", "replication"), "it follows")
        asked = {count: _failover(f"{url}?min_replicas={count}") for count in range(3)}
    until(lambda: b"connected_slaves:0" in server.cli("INFO", "replication"), "it is gone")
    assert [asked[count].severity for count in range(3)] == ["warning", "ok", "error"]
    assert "it has 1 replica, which copies later" in asked[0].message
    assert "write ?min_replicas=1" in asked[0].hint
    assert "1 of 1" in asked[1].message
    assert "it has 1 replica" in asked[2].message
    assert "min_replicas=2" in asked[2].message


def _failover(url):
    return next(found for found in look(url) if found.check == "failover")


def test_doctor_exits_with_an_error_where_no_lock_is_granted(server, url, capsys):
    server.cli("ACL", "SETUSER", "locker", "-evalsha")
    assert run(["doctor", "--url", url]) == 2
    assert "EVALSHA" in capsys.readouterr().out


# -- what the user may do


def test_the_probe_tries_every_command_that_the_scripts_call():
    assert CALLED
    tried = re.findall(r"^  \{ '(\w+)'", LUA["probe.lua"], re.MULTILINE)
    assert sorted(tried) == sorted(CALLED)


@pytest.mark.parametrize("word", [*sorted(CALLED - {"TIME"}), "EVALSHA", "EVAL", *LOOKS])
def test_a_command_that_the_user_may_not_call_is_named(server, url, word):
    server.cli("ACL", "SETUSER", "locker", f"-{word}")
    found = bad(url)
    assert set(found) == {"rights"}
    assert re.search(rf"\b{word}\b", found["rights"].message)
    assert "lockkit docs redis-acl" in found["rights"].hint
    assert "observers" not in found["rights"].hint


def test_all_that_is_missing_is_named_at_once(server, url):
    server.cli("ACL", "SETUSER", "locker", "-get", "-zadd", "-evalsha")
    assert "EVALSHA, GET, ZADD" in bad(url)["rights"].message


def test_an_observer_who_cannot_look_is_told_so(server, url):
    server.cli("ACL", "SETUSER", "locker", "-eval", "-evalsha")
    assert "observers may look" in bad(url)["rights"].hint
    server.cli("ACL", "SETUSER", "locker", "-multi")
    assert "EVAL, EVALSHA, MULTI are refused" in bad(url)["rights"].message


def test_where_there_is_no_key_to_try_with_the_right_to_run_scripts_is_looked_at_all_the_same(server, url):
    with contextlib.closing(open_store(url, OpenOptions())) as store:
        (node,) = store.store.topology.servers()

        def found():
            (one,) = rights(store.store, node, (), time.monotonic() + 2.0)
            return one

        assert found().severity == "ok"
        server.cli("ACL", "SETUSER", "locker", "-evalsha")
        assert "EVALSHA" in found().message


def test_without_the_right_to_wait_a_lock_that_asks_for_copies_is_an_error(server, url):
    server.cli("ACL", "SETUSER", "locker", "-wait")
    assert "rights" not in bad(url)
    assert "WAIT" in bad(f"{url}?min_replicas=1")["rights"].message


@pytest.mark.parametrize("word", ["EVALSHA", "ZADD"])
def test_a_command_that_is_renamed_is_named(word):
    with RedisServer(rename_command=[f'{word} ""']) as server:
        found = bad(server.url())
    assert word in found["rights"].message
    assert "lockkit docs redis-acl" in found["rights"].hint


@pytest.mark.parametrize(
    "program", [each for each in ("redis-server", "valkey-server") if shutil.which(each)]
)
def test_the_probe_changes_nothing_and_leaves_nothing(program):
    with RedisServer(program=program) as server:
        with lockkit.connect(server.url()) as client:
            changes = _changes(server)
            assert {found.check: found.severity for found in client.check()}["rights"] == "ok"
            assert _changes(server) == changes
        assert server.cli("KEYS", "*") == []


def _changes(server):
    return re.search(rb"rdb_changes_since_last_save:(\d+)", server.cli("INFO", "persistence"))[1]


def test_what_info_is_refused_with_is_told_without_its_hint_in_the_middle(server, url):
    server.cli("ACL", "SETUSER", "locker", "-info")
    unknown = next(found for found in look(url) if found.severity == "warning")
    assert "documentation" not in unknown.message
    assert "+info" in unknown.hint
