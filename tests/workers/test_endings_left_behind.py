"""Tasks that end while a program they started works on: the lock stays until it ends, on every store."""

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
LONG = 60


class Embedded:
    """The embedded store in place of a server."""

    def __init__(self, folder):
        self._folder = folder

    def url(self):
        return f"sqlite:{self._folder}/locks.db"

    def cli(self, *_):
        """Nothing is left in it."""


@pytest.fixture(scope="module", params=["redis", "sqlite"])
def lock_store(request, tmp_path_factory):
    if request.param == "sqlite":
        yield Embedded(tmp_path_factory.mktemp("store"))
        return
    from support.servers.redis import RedisServer

    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def worker(rig):
    return rig.worker(APP, environ={"TEST_QUEUE": "left"}, concurrency=2)


@pytest.fixture
def play(rig, worker):
    def start(lock, **options):
        """Start a task that leaves a program behind. Returns the task, its process and the program's."""
        sent = rig.app(APP).tasks["endings.play"].apply_async((lock, "leave"), queue="left", **options)
        [holds] = rig.stage.wait("holds", sent.id)
        [outlives] = rig.stage.wait("outlives", sent.id)
        return sent, holds["pid"], outlives["pid"]

    return start


ENDINGS = {
    "hard limit": "time_limit: ",
    "revoked": "revoked: ",
    "killed": "task_crash: ",
}


@pytest.mark.parametrize("how", ENDINGS)
def test_a_program_that_works_on_keeps_the_lock_of_its_task(rig, worker, play, how):
    lock, client = how.replace(" ", "-"), rig.client()
    sent, pid, program = play(lock, **({"time_limit": 3} if how == "hard limit" else {}))
    lived = []

    def waits():
        with client.lock(lock, ttl=30).acquire(timeout=LONG):
            lived.append((runs(program), time.clock_gettime(time.CLOCK_BOOTTIME)))

    after = threading.Thread(target=waits)
    after.start()
    until(lambda: client.inspect(lock).waiters, "the next one waits", 40)
    if how == "revoked":
        sent.revoke(terminate=True)
    elif how == "killed":
        os.kill(pid, signal.SIGKILL)
    until(lambda: not runs(pid), "the process of the task is dead", 40)
    worker.until_logged(f"which it may have started: pid {program}")
    assert lived == []
    rig.stage.say(f"{sent.id}:outlives")
    [outlived] = rig.stage.wait("outlived", sent.id)
    after.join(LONG + 10)
    [(works_on, at)] = lived
    assert not works_on
    assert outlived["at"] <= at
    why = [
        one["why"]
        for one in journal.read(rig.folder / "state", file=journal.ACTIONS)
        if one.get("name") == lock
    ]
    # The embedded store may be faster: it sees the death itself, as soon as the main process lets it.
    assert [one.startswith(ENDINGS[how]) for one in why] == [True] or not (
        why or rig.environ["LOCKKIT_URL"][:5] == "redis"
    )
