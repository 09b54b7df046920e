"""Workers that end while a task holds a lock: by the signals of a deployment and of a pod, and by a crash."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import lockkit
from lockkit.observe import journal
from lockkit.testing.processes import until
from support.holders import runs

APP = "support.celery.endings"
SOON = 60
"""Seconds within which a lock must be free: generous for the machine, and less than the ttl of 90 s."""


@pytest.fixture(scope="module")
def client(rig):
    return rig.client()


@pytest.fixture
def begin(rig):
    """Start a worker of its own and a task in it that holds a lock."""
    with contextlib.ExitStack() as stack:

        def start(lock, how="wait", **options):
            environ = {"TEST_QUEUE": lock, "LOCKKIT_JOURNAL": "true", **options.pop("environ", {})}
            worker = stack.enter_context(rig.worker(APP, environ=environ, concurrency=1, **options))
            sent = rig.app(APP).tasks["endings.play"].apply_async((lock, how), queue=lock)
            [holds] = rig.stage.wait("holds", sent.id)
            return worker, sent, holds

        yield start


def granted(client, lock, *pids):
    """Wait for the lock, and assert that none of these processes lives when it is granted."""
    with client.lock(lock, ttl=30).acquire(timeout=SOON):
        assert [pid for pid in pids if runs(pid)] == []


def evicted(rig, lock):
    """The reasons in the journal of recovery for the evictions of a lock by a main process."""
    records = journal.read(rig.folder / "state", file=journal.ACTIONS)
    return [record["why"] for record in records if record.get("name") == lock]


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_warm_shutdown_lets_the_task_finish(rig, client, begin, pool):
    """SIGTERM, as a deployment and a pod that is deleted send it."""
    lock = f"warm-{pool}"
    worker, sent, _ = begin(lock, pool=pool)
    worker.signal(signal.SIGTERM)
    worker.until_logged("Warm shutdown")
    assert client.inspect(lock).holders
    rig.stage.say(sent.id)
    granted(client, lock)
    assert worker.wait() == 0
    assert rig.released(lock) == ["normal"]
    assert evicted(rig, lock) == []


def test_a_cold_shutdown_ends_the_task_and_frees_its_lock(rig, client, begin):
    worker, _, holds = begin("cold", "spin")
    worker.signal(signal.SIGQUIT)
    granted(client, "cold")
    worker.wait()
    assert [one.partition(":")[0] for one in rig.released("cold")] == ["exit"]
    assert len(evicted(rig, "cold")) == 1
    until(lambda: not runs(holds["pid"]), "the process has ended", 40)


def test_a_soft_shutdown_becomes_a_cold_one(rig, client, begin):
    worker, _, _ = begin("soft", "spin", environ={"SOFT_SHUTDOWN": "1"})
    worker.signal(signal.SIGQUIT)
    granted(client, "soft")
    worker.wait()
    assert "Initiating Soft Shutdown" in worker.words
    assert [one.partition(":")[0] for one in rig.released("soft")] == ["exit"]


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_worker_that_is_killed_keeps_its_locks_for_their_ttl_at_most(rig, client, begin, pool):
    """As at the end of a pod's grace period or for want of memory. Nobody is left who could prove it."""
    lock = f"lost-{pool}"
    worker, _, holds = begin(lock, pool=pool, environ={"TASK_TTL": "3"})
    worker.signal(signal.SIGKILL)
    granted(client, lock, holds["pid"], worker.pid)
    assert rig.released(lock) == []


def test_a_thread_that_calls_exit_of_the_process_ends_the_worker(rig, client, begin):
    worker, _, _ = begin("threads-exit", "os._exit", pool="threads", environ={"TASK_TTL": "3"})
    assert worker.wait() == 3
    granted(client, "threads-exit", worker.pid)


def test_the_embedded_store_frees_the_lock_of_a_dead_worker_by_itself(rig, begin, tmp_path):
    """The main process keeps the claims of its pool processes alive, and is dead here, too."""
    url = f"sqlite:{tmp_path}/locks.db"
    worker, _, holds = begin("embedded", environ={"LOCKKIT_URL": url})
    with contextlib.closing(lockkit.connect(url)) as client:
        worker.signal(signal.SIGKILL)
        os.kill(holds["pid"], signal.SIGKILL)
        granted(client, "embedded", holds["pid"], worker.pid)


@pytest.mark.parametrize("pool", ["gevent", "eventlet"])
def test_a_pool_of_greenlets_is_refused_at_the_start(rig, pool):
    if find_spec(pool) is None:
        pytest.skip(f"{pool} is not installed")
    worker = rig.worker(APP, pool=pool, ready=False)
    assert worker.wait(90) != 0
    assert "lockkit: task endings." in worker.words
    assert f"takes a lock in the {pool} pool, which lockkit does not support" in worker.words
    assert "set worker_pool to prefork or threads (--pool)" in worker.words


def test_the_refusal_does_not_need_the_library_of_the_greenlets(rig):
    program = (
        "class Worker: pool_cls = 'celery.concurrency.gevent:TaskPool'\n"
        "from celery.signals import worker_init\n"
        "from support.celery.endings import app\n"
        "app.finalize()\n"
        "Worker.app = app\n"
        "worker_init.send(sender=Worker)\n"
    )
    env = {**os.environ, **rig.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "READY_FILE": ""}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "takes a lock in the gevent pool, which lockkit does not support" in done.stderr


@pytest.mark.parametrize(
    "pool, environ, told, change",
    [
        (
            "solo",
            {},
            "waits for a busy lock in the solo pool",
            'set on_busy="retry", or worker_pool to prefork (--pool)',
        ),
        ("prefork", {"LOCKKIT_URL": "memory:"},
         "takes its lock in memory:, which keeps apart the threads", "set lockkit_url"),
    ],
)  # fmt: skip
def test_a_worker_whose_pool_does_not_fit_the_lock_does_not_start_and_its_messages_stay(
    rig, pool, environ, told, change
):
    queue = f"waiting-{pool}"
    rig.sender().send_task("waiting.wait", queue=queue)
    worker = rig.worker(
        "support.celery.waiting", pool=pool, environ=environ, options=("-Q", queue), ready=False
    )
    assert worker.wait(90) != 0
    assert f"lockkit: task waiting.wait {told}" in worker.words
    assert change in worker.words
    assert rig.broker.cli("LLEN", queue) == 1
