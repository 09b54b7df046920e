"""A process that is killed, on the other stores, and by the kernel for want of memory."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest

import lockkit
from lockkit.observe import journal
from support.holders import runs

APP = "support.celery.endings"
SOON = 60
"""Seconds within which a lock must be free: generous for the machine, and less than the ttl of 90 s."""


@contextlib.contextmanager
def etcd():
    from support.servers.etcd import EtcdServer

    with EtcdServer() as server:
        yield server.url()


@contextlib.contextmanager
def zookeeper():
    from support.servers.zookeeper import ZooKeeperServer

    with ZooKeeperServer() as server:
        yield server.url()


def why_evicted(rig, lock):
    records = journal.read(rig.folder / "state", file=journal.ACTIONS)
    return [record["why"] for record in records if record.get("name") == lock]


@pytest.mark.parametrize("serve", [etcd, zookeeper])
def test_a_killed_process_leaves_its_lock_free_on_this_store(rig, serve):
    queue = serve.__name__
    with (
        serve() as url,
        contextlib.closing(lockkit.connect(url)) as client,
        rig.worker(APP, environ={"TEST_QUEUE": queue, "LOCKKIT_URL": url, "TASK_TTL": "100"}, concurrency=1),
    ):
        sent = rig.app(APP).tasks["endings.play"].apply_async((f"on-{queue}", "wait"), queue=queue)
        [holds] = rig.stage.wait("holds", sent.id)
        os.kill(holds["pid"], signal.SIGKILL)
        with client.lock(f"on-{queue}").acquire(timeout=SOON):
            assert not runs(holds["pid"])
    [why] = why_evicted(rig, f"on-{queue}")
    assert why.startswith("task_crash: ")


@pytest.fixture
def little_memory():
    """A control group whose processes may use 100 MiB."""
    folder = Path("/sys/fs/cgroup/memory", f"lockkit-{os.getpid()}")
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"this test needs the right to make a control group for memory: {error}")
    try:
        (folder / "memory.limit_in_bytes").write_text(str(100 << 20))
        yield folder
    finally:
        folder.rmdir()


def test_a_process_that_the_kernel_kills_for_want_of_memory_leaves_its_lock_free(rig, little_memory):
    with rig.worker(APP, environ={"TEST_QUEUE": "hungry"}, concurrency=1):
        sent = rig.app(APP).tasks["endings.play"].apply_async(("hungry", "wait"), queue="hungry")
        [holds] = rig.stage.wait("holds", sent.id)
        (little_memory / "cgroup.procs").write_text(str(holds["pid"]))
        rig.stage.say(sent.id, "eat")
        with rig.client().lock("hungry").acquire(timeout=SOON):
            assert not runs(holds["pid"])
        assert "oom_kill 1" in (little_memory / "memory.oom_control").read_text()
    [why] = why_evicted(rig, "hungry")
    assert why.startswith("task_crash: ")
