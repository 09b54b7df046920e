"""Tasks whose process is killed: the lock is free at once, but not while it or its children live."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from lockkit.observe import journal
from lockkit.testing.processes import until
from support.holders import runs

APP = "support.celery.endings"
SOON = 60
"""Seconds within which a lock must be free: generous for the machine, and less than the ttl of 90 s."""


@pytest.fixture(scope="module")
def worker(rig):
    return rig.worker(APP, environ={"TEST_QUEUE": "processes"}, concurrency=2)


@pytest.fixture(scope="module")
def client(rig):
    return rig.client()


@pytest.fixture
def play(rig, worker):
    """Start a task that holds a lock of its own, and say in which process."""
    app = rig.app(APP)

    def start(lock, how, task="play", **options):
        sent = app.tasks[f"endings.{task}"].apply_async((lock, how), queue="processes", **options)
        [holds] = rig.stage.wait("holds", sent.id)
        return sent, holds

    return start


class Next:
    """Somebody who waits for the lock, on a thread, and looks who lives when it is granted."""

    def __init__(self, client, lock, *pids):
        self._client, self._lock, self._pids = client, lock, pids
        self.lived, self.at = None, 0.0
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def _wait(self):
        with self._client.lock(self._lock, ttl=30).acquire(timeout=SOON):
            self.at = time.clock_gettime(time.CLOCK_BOOTTIME)
            self.lived = [pid for pid in self._pids if runs(pid)]

    def is_served(self):
        self._thread.join(SOON + 10)
        assert self.lived == [], f"granted while these lived: {self.lived}"
        return self.at

    @property
    def waits(self):
        return self.lived is None

    def queued(self):
        """Wait until the claim is in the queue."""
        until(lambda: self._client.inspect(self._lock).waiters, "the next one waits", 30)
        return self


def reasons(rig, lock):
    """Why claims of a lock were evicted, as the journal of recovery has it."""
    return [
        record["why"]
        for record in journal.read(rig.folder / "state", file=journal.ACTIONS)
        if record.get("name") == lock
    ]


def test_a_process_that_is_killed_leaves_its_lock_free_at_once(rig, worker, client, play):
    sent, holds = play("killed", "wait")
    after = Next(client, "killed", holds["pid"]).queued()
    os.kill(holds["pid"], signal.SIGKILL)
    after.is_served()
    [why] = reasons(rig, "killed")
    assert why.startswith("task_crash: ")
    assert "SIGKILL" in why or "has ended" in why
    assert sent.id in why
    assert "evicted" in worker.until_logged("task_crash: ")


@pytest.mark.parametrize("how", ["os._exit", "kill"])
def test_so_does_one_that_ends_itself_without_a_word(rig, client, play, how):
    lock = f"ends-itself-{how}"
    _, holds = play(lock, how)
    Next(client, lock, holds["pid"]).is_served()
    [why] = reasons(rig, lock)
    assert why.startswith("task_crash: ")


def test_a_hard_time_limit_frees_the_lock_only_when_the_process_is_dead(rig, client, play):
    """billiard reports the time limit before TERM, which this process ignores, and kills it afterwards."""
    _, holds = play("limited", "ignore TERM", time_limit=3)
    Next(client, "limited", holds["pid"]).is_served()
    [why] = reasons(rig, "limited")
    assert why.startswith("time_limit: ")
    assert "(3 s)" in why


def test_a_process_that_goes_on_after_a_revocation_keeps_its_lock(rig, worker, client, play):
    """Celery announces a revocation as soon as it has sent the signal, which this process ignores."""
    sent, holds = play("revoked", "ignore TERM")
    after = Next(client, "revoked").queued()
    sent.revoke(terminate=True)
    until(lambda: sent.state == "REVOKED", "Celery has announced the revocation", 40)
    assert after.waits
    assert [one.owner.pid for one in client.inspect("revoked").holders] == [holds["pid"]]
    rig.stage.say(sent.id)
    [ends] = rig.stage.wait("ends", sent.id)
    assert ends["at"] <= after.is_served()
    assert reasons(rig, "revoked") == []


def test_a_revocation_that_kills_frees_the_lock(rig, client, play):
    sent, holds = play("revoked-9", "wait")
    after = Next(client, "revoked-9", holds["pid"]).queued()
    sent.revoke(terminate=True, signal="SIGKILL")
    after.is_served()
    [why] = reasons(rig, "revoked-9")
    assert why.startswith("revoked: ")


def test_what_a_killed_task_has_left_behind_keeps_the_lock(rig, worker, client, play):
    sent, holds = play("left", "leave")
    [outlives] = rig.stage.wait("outlives", sent.id)
    after = Next(client, "left", holds["pid"], outlives["pid"]).queued()
    os.kill(holds["pid"], signal.SIGKILL)
    told = worker.until_logged(f"which it may have started: pid {outlives['pid']}")
    assert "its locks ('left') stay until their ttl is over" in told
    assert after.waits
    rig.stage.say(f"{sent.id}:outlives")
    assert rig.stage.wait("outlived", sent.id)[0]["at"] <= after.is_served()
    [why] = reasons(rig, "left")
    assert why.startswith("task_crash: ")


def test_a_min_hold_goes_on_when_the_process_is_dead(rig, client, play):
    _, holds = play("delayed", "kill", task="delayed")
    assert Next(client, "delayed", holds["pid"]).is_served() - holds["at"] >= 4
    assert len(reasons(rig, "delayed")) == 1


def test_members_of_a_pool_are_free_too(rig, worker, client):
    app = rig.app(APP)
    sent = app.tasks["endings.pooled"].apply_async(("kill",), queue="processes")
    [holds] = rig.stage.wait("holds", sent.id)
    with client.pool("licences", ["a", "b"]).acquire(2, timeout=SOON):
        assert not runs(holds["pid"])


def test_another_process_of_the_worker_keeps_its_locks(rig, client, play):
    other, holder = play("other", "wait")
    _, killed = play("beside", "kill")
    assert holder["pid"] != killed["pid"]
    Next(client, "beside", killed["pid"]).is_served()
    assert [one.owner.pid for one in client.inspect("other").holders] == [holder["pid"]]
    rig.stage.say(other.id)
    assert other.get(timeout=40) == "go"
