"""A URL that leads to another kind of server: the error names it, at once, with the URL to write instead."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytest.importorskip("redis")

import lockkit
from lockkit.cli.main import run
from lockkit.errors import BackendUnavailable, ConfigError, PermissionDenied
from lockkit.testing.processes import free_port, until
from lockkit.testing.troubles import SECRET, both_ways, trouble
from support.servers.proxy import Proxy
from support.servers.redis import RedisServer
from support.servers.redis_groups import RedisCluster
from support.servers.started import started

USER = f"one on >{SECRET} ~* &* +@all -info"


server = started(RedisServer, user=USER, databases=4)


cluster = started(RedisCluster, user=[USER])


@pytest.fixture(scope="module")
def sentinel(server):
    with RedisServer(as_sentinel=True, sentinel=[f"monitor kit {server.host} {server.port} 1"]) as made:
        yield made


def refused(url, way, says, hint):
    """A mistake in the configuration is told at once, even to a client that would wait."""
    error = trouble(url, way)
    assert isinstance(error, ConfigError)
    assert says in error.message
    assert hint in error.hint
    began = time.monotonic()
    with lockkit.connect(url) as client, pytest.raises(ConfigError):
        client.lock("a").acquire(timeout=20)
    assert time.monotonic() - began < 5


# -- a Cluster, and what is none


@both_ways
def test_a_node_of_a_cluster_in_place_of_a_server(cluster, way):
    node = cluster.nodes[0]
    hint = f"write redis+cluster://{node.address}"

    refused(node.url(), way, "it is part of a Cluster", hint)
    refused(node.url(user="one", password=SECRET), way, "it is part of a Cluster", hint)
    refused(node.url(db=1), way, "it is part of a Cluster", hint)  # it would refuse the database
    refused(node.socket_url(), way, "it is part of a Cluster", "write redis+cluster://HOST:PORT")
    for node in cluster.nodes:
        assert node.cli("KEYS", "*") == []


@both_ways
def test_a_cluster_that_is_watched_by_a_sentinel(cluster, way):
    node = cluster.nodes[0]
    with RedisServer(as_sentinel=True, sentinel=[f"monitor kit {node.host} {node.port} 1"]) as sentinel:
        url = f"redis+sentinel://{sentinel.address}/kit"

        refused(url, way, f"{node.address} is part of a Cluster", f"write redis+cluster://{node.address}")


@both_ways
def test_a_server_in_place_of_a_cluster(server, way):
    refused(
        f"redis+cluster://{server.address}",
        way,
        "it is not part of a Cluster",
        f"write redis://{server.address}",
    )


def test_to_tell_a_cluster_takes_no_round_trip_of_its_own(server):
    with Proxy((server.host, server.port), delay=0.3) as slow:
        began = time.monotonic()
        with lockkit.connect(f"redis://{slow.address}?request_timeout=5s") as client:
            client.driver()
        took = time.monotonic() - began
    assert 1.8 <= took < 2.35, "login, PING and INFO: three, there and back"


def test_a_node_that_cannot_be_asked_what_it_is_says_so_at_the_first_name_of_anothers_slots():
    with RedisCluster(rename_command=['HELLO ""']) as nodes, lockkit.connect(nodes.nodes[0].url()) as client:
        name = next(
            name for name in map(str, range(50)) if nodes.node_of(f"{{{name}}}") is not nodes.nodes[0]
        )
        with pytest.raises(BackendUnavailable, match="part of a Cluster") as told:
            client.lock(name).acquire(timeout=0)
    assert "redis+cluster://" in told.value.hint


@pytest.mark.parametrize("forbidden", ["-hello", "renamed"])
def test_a_server_that_says_nothing_of_itself_is_taken_at_its_word(forbidden):
    lines = (
        {"rename_command": 'HELLO ""'}
        if forbidden == "renamed"
        else {"user": f"one on >{SECRET} ~* &* +@all -hello"}
    )
    with RedisServer(**lines) as server:
        login = {} if forbidden == "renamed" else {"user": "one", "password": SECRET}
        with lockkit.connect(server.url(**login)) as client:
            assert client.lock("a").acquire().release().outcome == "RELEASED"


def test_what_is_said_of_a_node_at_opening_names_it(cluster, caplog):
    with caplog.at_level(logging.WARNING), lockkit.connect(cluster.url()) as client:
        client.lock("a").acquire().release()

    said = [record.getMessage() for record in caplog.records if "append-only" in record.getMessage()]
    assert sorted(each.partition(": ")[0] for each in said) == sorted(node.address for node in cluster.nodes)


# -- sentinels


@both_ways
def test_a_sentinel_in_place_of_a_server(sentinel, way):
    hint = f"write redis+sentinel://{sentinel.address}/SERVICE"

    refused(f"redis://{sentinel.address}", way, "is a sentinel", hint)
    refused(f"redis+cluster://{sentinel.address}", way, "is a sentinel", hint)


@both_ways
def test_a_server_in_place_of_a_sentinel(server, way):
    url = f"redis+sentinel://:{SECRET}@{server.address}/kit"

    refused(url, way, f"{server.address} is no sentinel", f"write redis://{server.address}")


@both_ways
def test_a_service_that_the_sentinels_do_not_know(sentinel, way):
    url = f"redis+sentinel://:{SECRET}@{sentinel.address}/other"

    refused(url, way, f"{sentinel.address} knows no 'other'", "SENTINEL MASTERS")


def test_as_long_as_another_sentinel_may_come_back_it_is_worth_a_wait(server, sentinel):
    gone = f"127.0.0.1:{free_port()}"
    for one, says in ((server, "is no sentinel"), (sentinel, "knows no 'other'")):
        error = trouble(f"redis+sentinel://{gone},{one.address}/other")

        assert isinstance(error, BackendUnavailable)
        assert says in error.message
        assert f"cannot reach {gone}" in error.message


@both_ways
def test_a_login_that_the_sentinel_wants_is_told_as_missing_or_wrong(server, way):
    watch = f"monitor kit {server.host} {server.port} 1"
    with RedisServer(
        as_sentinel=True, sentinel=[watch], requirepass=SECRET, login=("default", SECRET)
    ) as guarded:
        url = f"redis+sentinel://{guarded.address}/kit"
        for each, says in (
            (url, "it wants a password"),
            (f"{url}?sentinel_password=x{SECRET}", "user name or password is wrong"),
        ):
            error = trouble(each, way)

            assert isinstance(error, PermissionDenied)
            assert f"{guarded.address}: {says}" in error.message
            assert "sentinel_password=" in error.hint


# -- sockets


@both_ways
def test_a_file_that_is_no_socket(way, tmp_path):
    (tmp_path / "file").touch()

    refused(f"unix://{tmp_path}/file", way, f"{tmp_path}/file: this is no socket", "CONFIG GET unixsocket")
    refused(f"unix://{tmp_path}", way, "this is no socket", "CONFIG GET unixsocket")


@both_ways
def test_a_socket_that_is_not_there_or_at_which_nobody_listens(way, tmp_path):
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as left_over:
        left_over.bind(str(tmp_path / "dead"))
    for name, says in (("dead", "refused"), ("nowhere", "No such file")):
        error = trouble(f"unix://:{SECRET}@{tmp_path}/{name}", way)

        assert isinstance(error, BackendUnavailable)
        assert says in error.message
        assert "CONFIG GET unixsocket" in error.hint
        assert "port" not in error.hint


def test_whoever_waits_has_the_lock_when_the_socket_has_come(tmp_path):
    path = tmp_path / "socket"
    got = threading.Event()

    def wait():
        with lockkit.connect(f"unix://{path}") as client, client.lock("a").acquire(timeout=20):
            got.set()

    waiter = threading.Thread(target=wait)
    waiter.start()
    with RedisServer() as server:
        path.symlink_to(server.socket)
        until(got.is_set, "the lock is had")
        waiter.join()


# -- what is no Redis


class _Page(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_args):
        pass


@pytest.fixture(scope="module")
def web():
    with ThreadingHTTPServer(("127.0.0.1", 0), _Page) as page:
        thread = threading.Thread(target=page.serve_forever)
        thread.start()
        yield f"127.0.0.1:{page.server_address[1]}"
        page.shutdown()
        thread.join()


@both_ways
@pytest.mark.parametrize("url", ["redis://:{}@{}", "redis+cluster://:{}@{}", "redis+sentinel://:{}@{}/kit"])
def test_a_web_server(web, way, url):
    refused(url.format(SECRET, web), way, "no Redis", "check host and port")


@both_ways
def test_a_web_server_in_place_of_redis_with_tls(web, way):
    refused(f"rediss://:{SECRET}@{web}", way, "the server does not speak TLS", "redis://")


# -- what the command line makes of it


def test_a_command_ends_as_with_any_mistake_in_the_configuration(
    server, cluster, sentinel, web, tmp_path, capsys
):
    for url in (
        cluster.nodes[0].url(),
        f"redis+cluster://{server.address}",
        f"redis+sentinel://{sentinel.address}/other",
        f"redis+sentinel://{server.address}/kit",
        f"redis://{sentinel.address}",
        f"redis://{web}",
        f"unix://{tmp_path}",
        server.url(db=9),
    ):
        assert run(["status", "--url", url]) == 78, url
        assert capsys.readouterr().err.startswith("lockkit: "), "and nothing else"
    assert run(["status", "--url", f"unix://{tmp_path}/nowhere"]) == 69
