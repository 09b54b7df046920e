"""Refusals of a Redis server: each is told with its reason and what to do next, and holds nothing."""

from __future__ import annotations

import contextlib
import socket

import pytest

pytest.importorskip("redis")

import redis

import lockkit
from lockkit.errors import BackendUnavailable, PermissionDenied
from lockkit.store.spi import RELEASED, OpenOptions
from lockkit.testing.claims import claim, renew, states, take
from lockkit.testing.processes import free_port, until
from lockkit.testing.stage import Work
from lockkit.testing.troubles import both_ways, through_a_client, through_the_store, trouble
from lockkit_redis.backend import open_store
from support.servers.redis import RedisServer
from support.servers.started import started

server = started(RedisServer, repl_diskless_sync_delay=0)


@both_ways
def test_a_replica_in_place_of_the_primary_is_told(server, way, nothing_held):
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
def test_a_renamed_or_forbidden_command_is_named(way, forbidden, nothing_held):
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
            assert "it has reached its limit of clients" in str(trouble(server.url()))


# -- what passes ---------------------------------------------------------------------------------------------


def says(server, line):
    """A fact of INFO; also while the server answers nothing else."""
    return line.encode() in server.cli("INFO")


@contextlib.contextmanager
def disk_that_cannot_be_written(server):
    """MISCONF: a folder stands where the snapshot should go."""
    in_the_way = server.folder / "dump.rdb"
    in_the_way.unlink(missing_ok=True)  # a test before may have had one written
    in_the_way.mkdir()
    server.cli("CONFIG", "SET", "save", "3600 1")
    try:
        server.cli("BGSAVE")
        until(lambda: says(server, "rdb_last_bgsave_status:err"), "the snapshot fails")
        yield
    finally:
        in_the_way.rmdir()
        server.cli("BGSAVE")
        until(lambda: says(server, "rdb_last_bgsave_status:ok"), "the snapshot is written")
        server.cli("CONFIG", "SET", "save", "")


@contextlib.contextmanager
def no_replica(server):
    """NOREPLICAS, until there is one."""
    with contextlib.ExitStack() as stack:
        server.cli("CONFIG", "SET", "min-replicas-to-write", 1)
        try:
            yield
            stack.enter_context(RedisServer(replicaof=f"{server.host} {server.port}"))
            until(lambda: says(server, "min_slaves_good_slaves:1"), "the replica is in step")
        finally:
            stack.callback(server.cli, "CONFIG", "SET", "min-replicas-to-write", 0)


@contextlib.contextmanager
def strangers_endless_script(server):
    """BUSY."""
    server.cli("CONFIG", "SET", "busy-reply-threshold", 50)
    with server.connect() as stranger:
        script = Work(lambda: stranger.execute_command("EVAL", "while true do end", 0))
        until(lambda: refuses(server, "BUSY"), "the script is too slow")
        try:
            yield
        finally:
            server.cli("SCRIPT", "KILL")
        assert "killed" in str(script.error())


@contextlib.contextmanager
def data_that_are_still_loaded(server):
    """LOADING: as after a start, for as long as we like."""
    server.cli("DEBUG", "POPULATE", 200_000, "stranger", 100)
    server.cli("CONFIG", "SET", "loading-process-events-interval-bytes", 1024)
    server.cli("CONFIG", "SET", "key-load-delay", 50)  # microseconds; it answers every few hundred keys
    with server.connect() as stranger:
        load = Work(lambda: stranger.execute_command("DEBUG", "RELOAD"))
        until(lambda: refuses(server, "loading"), "it loads")
        try:
            yield
        finally:
            server.cli("CONFIG", "SET", "key-load-delay", 0)
        load.error()  # perhaps it took longer than its answer is waited for
    until(lambda: says(server, "loading:0"), "it has loaded")


@contextlib.contextmanager
def replica_that_has_lost_its_primary(server):
    """MASTERDOWN."""
    server.cli("CONFIG", "SET", "replica-serve-stale-data", "no")
    server.cli("REPLICAOF", server.host, free_port())
    until(lambda: refuses(server, "MASTER"), "it notices")
    try:
        yield
    finally:
        server.cli("REPLICAOF", "NO", "ONE")


def refuses(server, why):
    try:
        server.cli("GET", "a")
    except redis.RedisError as error:
        return why in str(error)
    return False


brittle = started(RedisServer, enable_debug_command="local", repl_diskless_sync_delay=0)


@pytest.mark.parametrize(
    "cause, reason, advice",
    [
        (disk_that_cannot_be_written, "it cannot write to its disk and refuses changes", "read its log"),
        (no_replica, "it has too few replicas (min-replicas-to-write)", "check the replicas"),
        (strangers_endless_script, "a script has kept it busy for too long", "SCRIPT KILL ends it"),
        (data_that_are_still_loaded, "it is still loading its data", "this passes"),
        (replica_that_has_lost_its_primary, "it is a replica without its primary", "name the primary"),
    ],
    ids=["MISCONF", "NOREPLICAS", "BUSY", "LOADING", "MASTERDOWN"],
)
def test_what_passes_is_told_holds_nothing_and_when_it_has_passed_whoever_waited_gets_the_lock(
    brittle, cause, reason, advice
):
    brittle.cli("FLUSHALL")
    hasty = f"{brittle.url()}?request_timeout=500ms"
    with (
        contextlib.closing(open_store(brittle.url(), OpenOptions())) as store,
        lockkit.connect(hasty) as client,
    ):
        held, fence = take(store, "held")
        client.lock("warm").acquire().release()
        with cause(brittle):
            waiter = Work(lambda: client.lock("waited-for").acquire(timeout=30))
            for way in (
                through_the_store,
                lambda _: through_a_client(hasty),
                lambda _: store.acquire(claim(), True, 2.0),
                lambda _: client.lock("a").acquire(timeout=0),
            ):
                error = trouble(brittle.url(), way)
                assert isinstance(error, BackendUnavailable)
                assert reason in str(error)
                assert advice in str(error)
            assert not waiter.done, waiter.error()

        assert waiter.result().release().outcome == "RELEASED"
        assert states(store, "a") == states(store, "waited-for") == []
        assert renew(store, held, fence).state == "HELD"
        assert store.release(held, 2.0) == RELEASED
        assert take(store)[1] > fence
