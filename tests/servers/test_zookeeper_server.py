"""The ZooKeeper servers that the tests of the ZooKeeper store run on, themselves."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lockkit.testing.servers.processes import ServerFailed, ServerMissing, until
from lockkit.testing.servers.zookeeper import ZooKeeperServer

pytest.importorskip("kazoo")
pytestmark = pytest.mark.skipif(not ZooKeeperServer.installed(), reason="make servers")


@pytest.fixture
def server():
    with ZooKeeperServer() as server:
        yield server


def put(server, path, **options):
    with server.connect() as client:
        client.create(path, b"value", **options)


def children(server, path="/"):
    with server.connect() as client:
        return [each for each in client.get_children(path) if each != "zookeeper"]


def test_it_answers_where_its_url_says(server):
    put(server, "/node")
    assert server.url() == f"zookeeper://127.0.0.1:{server.port}"
    assert server.url("/a b", user="a b", password="p@ss") == (
        f"zookeeper://a%20b:p%40ss@127.0.0.1:{server.port}/a%20b"
    )
    assert server.mode == "standalone"
    assert children(server) == ["node"]


def test_nobody_else_can_enter_its_folder(server):
    assert server.folder.stat().st_mode & 0o777 == 0o700


def test_a_bad_configuration_is_told_with_the_servers_own_words():
    with pytest.raises(ServerFailed, match="NumberFormatException"):
        ZooKeeperServer(tickTime="no number")


def test_the_environment_does_not_configure_it(monkeypatch):
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Dzookeeper.jute.maxbuffer=no-number -XX:NoSuchOption")
    with ZooKeeperServer() as server:
        put(server, "/node")


@pytest.mark.parametrize("lose_data", [True, False])
def test_a_restart_keeps_the_port_and_keeps_or_loses_the_data(server, lose_data):
    put(server, "/node")
    port, pid = server.port, server.pid
    server.restart(lose_data=lose_data)
    assert (server.port, server.alive) == (port, True)
    assert server.pid != pid
    assert children(server) == ([] if lose_data else ["node"])


def test_a_crash_loses_nothing(server):
    put(server, "/node")
    server.kill()
    assert not server.alive
    with pytest.raises(ConnectionRefusedError):
        server.word("srvr")
    server.start()
    assert children(server) == ["node"]


def test_a_paused_one_does_not_answer_until_it_goes_on(server):
    with server.session(patience=0.1) as session:
        server.pause()
        with pytest.raises(TimeoutError):
            session.ping()
    assert not server.ready()
    server.resume()
    assert server.ready()


def test_a_paused_one_can_be_stopped_and_started(server):
    server.pause()
    server.stop()
    assert not server.alive
    server.start()
    assert server.ready()


def test_a_missing_program_is_named_with_what_installs_it(monkeypatch):
    monkeypatch.setattr("lockkit.testing.servers.zookeeper.JARS", [Path("/no/such.jar")])
    with pytest.raises(ServerMissing, match="ZooKeeper or Java is not installed; run: make servers"):
        ZooKeeperServer()


CHILD = """
import os, signal
from lockkit.testing.servers.{module} import {kind}
with {kind}() as made:
    for server in getattr(made, "members", [made]):
        print(server.pid, server.folder, flush=True)
    {end}
"""


@pytest.mark.parametrize("end", ["pass", "os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)"])
@pytest.mark.parametrize("module, kind", [("zookeeper", "ZooKeeperServer")])
def test_it_goes_with_the_process_that_started_it(module, kind, end):
    child = subprocess.run(
        [sys.executable, "-c", CHILD.format(module=module, kind=kind, end=end)],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    started = [line.split() for line in child.stdout.splitlines()]
    assert len(started) == (1 if kind == "ZooKeeperServer" else 3)
    for pid, folder in started:
        until(lambda pid=pid: not runs(int(pid)), "the server is gone")
        until(lambda folder=folder: not Path(folder).exists(), "its folder is gone")


def runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_forked_child_leaves_its_parents_server_alone(server):
    child = os.fork()
    if not child:
        try:
            with ZooKeeperServer() as own:
                own.ready()
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert server.ready()


def test_nothing_is_left_of_a_server_that_was_closed(server):
    pid, folder = server.pid, server.folder
    server.close()
    assert not folder.exists()
    assert not runs(pid)
