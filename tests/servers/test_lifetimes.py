"""A private server ends with the process that started it, whatever kind it is, and leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lockkit.testing import minder
from lockkit.testing.processes import installed, until
from support.servers.etcd import EtcdServer
from support.servers.etcd_groups import EtcdCluster
from support.servers.redis import RedisServer
from support.servers.redis_groups import RedisCluster
from support.servers.zookeeper import ZooKeeperServer
from support.servers.zookeeper_groups import ZooKeeperEnsemble
from support.servers.zookeeper_program import zookeeper_installed


def needs(found):
    return pytest.mark.skipif(not found, reason="make servers")


REDIS = needs(installed("redis-server") or installed("valkey-server"))
ETCD, ZOOKEEPER = needs(installed("etcd")), needs(zookeeper_installed())
ALONE = [
    pytest.param(RedisServer, marks=REDIS),
    pytest.param(EtcdServer, marks=ETCD),
    pytest.param(ZooKeeperServer, marks=ZOOKEEPER),
]
GROUPS = [
    pytest.param(RedisCluster, "nodes", marks=REDIS),
    pytest.param(EtcdCluster, "members", marks=ETCD),
    pytest.param(ZooKeeperEnsemble, "members", marks=ZOOKEEPER),
]
ENDS = ["pass", "raise SystemExit(3)", "os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)"]
CHILD = """
import os, signal
from {module} import {kind}
made = {kind}()
for server in getattr(made, "{many}", [made]):
    print(server.pid, server.folder, flush=True)
{end}
"""


def runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def goes_with_its_process(kind, end, many=""):
    """How many servers a process started, all of which went with it."""
    child = subprocess.run(
        [sys.executable, "-c", CHILD.format(module=kind.__module__, kind=kind.__name__, many=many, end=end)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    started = [line.split() for line in child.stdout.splitlines()]
    for pid, folder in started:
        until(lambda pid=pid: not runs(int(pid)), "the server is gone")
        until(lambda folder=folder: not Path(folder).exists(), "its folder is gone")
    return len(started)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("kind", ALONE)
def test_it_goes_with_the_process_that_started_it(kind, end):
    assert goes_with_its_process(kind, end) == 1


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("kind, many", GROUPS)
def test_a_group_goes_with_the_process_that_started_it(kind, many, end):
    assert goes_with_its_process(kind, end, many) == 3


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="a minder needs Linux")
def test_a_server_goes_although_its_process_ended_before_the_minder_could_read_of_it(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    gone = subprocess.Popen(["true"])
    gone.wait()
    with subprocess.Popen(["sleep", "600"]) as server:
        order = f"+{server.pid} {folder}\n".encode()
        subprocess.run([sys.executable, "-I", "-S", minder.__file__, str(gone.pid)], input=order, check=True)

        assert server.wait(15) == -signal.SIGKILL
    assert not folder.exists()


@pytest.mark.parametrize("kind", ALONE)
def test_a_forked_child_leaves_its_parents_server_alone(kind):
    with kind() as server:
        child = os.fork()
        if not child:
            try:
                with kind() as own:
                    own.ready()
            finally:
                os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)

        assert server.ready()


@pytest.mark.parametrize("kind", ALONE)
def test_nothing_is_left_of_a_server_that_was_closed(kind):
    server = kind()
    pid, folder = server.pid, server.folder
    server.close()

    assert not folder.exists()
    assert not runs(pid)
