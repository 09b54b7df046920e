"""Programs that tasks start: others see under which lock they work, as those of ``lockkit run``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from lockkit.testing.processes import until
from support.celery.stage import PATIENCE
from support.holders import runs

APP = "support.celery.endings"


@pytest.fixture(scope="module")
def worker(rig):
    return rig.worker(APP, environ={"TEST_QUEUE": "programs"}, concurrency=2)


@pytest.fixture
def play(rig, worker):
    app = rig.app(APP)
    return lambda lock, how: app.tasks["endings.play"].apply_async((lock, how), queue="programs")


def recovered(rig, lock):
    """The actions of ``lockkit recover`` on the claims of a lock."""
    line = [sys.executable, "-m", "lockkit", "recover", "--yes", "--json"]
    env = {**os.environ, **rig.environ}
    done = subprocess.run(line, env=env, capture_output=True, text=True, check=False)
    return [case for case in json.loads(done.stdout)["cases"] if case["name"] == lock]


def test_a_recoverer_leaves_the_lock_of_a_dead_process_whose_program_works_on(rig, worker, play):
    """The recoverer is no parent, and this store has no pulse: only the environment shows the program."""
    client = rig.client()
    sent = play("left", "leave")
    [holds] = rig.stage.wait("holds", sent.id)
    [program] = rig.stage.wait("outlives", sent.id)
    os.kill(holds["pid"], signal.SIGKILL)
    until(lambda: not runs(holds["pid"]), "the process of the task has ended", PATIENCE)

    [case] = recovered(rig, "left")

    assert (case["kind"], case["action"]) == ("survivors", "tell")
    assert f"pid {program['pid']} (python" in case["why"]
    assert client.inspect("left").holders
    rig.stage.say(f"{sent.id}:outlives")
    with client.lock("left").acquire(timeout=PATIENCE):  # the worker itself frees it now, long before the ttl
        assert not runs(program["pid"])


def test_a_run_inside_a_task_on_the_lock_of_the_task_is_refused_or_uses_it(rig, play):
    refused = play("twice", "refuse").get(timeout=PATIENCE)
    assert "'twice' is held by the lockkit run or task around this one" in refused
    assert "--nested reuse" in refused
    assert play("twice", "reuse").get(timeout=PATIENCE) == "ran"
