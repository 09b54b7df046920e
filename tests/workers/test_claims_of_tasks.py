"""The tasks that claims name, and that no process of a pool goes on with a connection of the main process."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

APP = "support.celery.fleet"


@pytest.fixture(scope="module")
def worker(rig):
    environ = {"TEST_QUEUE": "claims", "LOCK_IN_PARENT": "held by the parent", "POD_NAME": "worker-7f"}
    return rig.worker(APP, environ=environ, concurrency=1)


@pytest.fixture
def looking(rig, worker):
    """A task that holds a lock, until the test ends."""
    sent = rig.app(APP).tasks["fleet.look"].apply_async(("looking",), queue="claims", retries=2)
    [begun] = rig.stage.wait("begun", sent.id)
    yield sent, begun
    rig.stage.say(sent.id)
    sent.get(timeout=40)


def lockkit(rig, *words):
    line = [sys.executable, "-m", "lockkit", *words]
    environ = {**os.environ, **rig.environ, "COLUMNS": "300"}
    return subprocess.run(line, env=environ, check=False, capture_output=True, text=True, timeout=60).stdout


def test_status_and_explain_say_which_run_of_which_task_holds_a_lock(rig, worker, looking):
    sent, begun = looking
    document = json.loads(lockkit(rig, "status", "looking", "--json"))
    [claim] = document["locks"][0]["holders"]
    about = {key: claim["owner"][key] for key in ("task", "task_id", "retries", "worker", "pod", "pid")}
    assert about == {
        "task": "fleet.look",
        "task_id": sent.id,
        "retries": 2,
        "worker": f"celery@{worker.name}",
        "pod": "worker-7f",
        "pid": begun["pid"],
    }
    for words in (("status", "looking"), ("explain", "looking")):
        shown = lockkit(rig, *words)
        assert "fleet.look" in shown
        assert sent.id in shown


def test_a_process_of_the_pool_has_connections_of_its_own(rig, worker, looking):
    """The main process holds a lock, with the client of the same application, when it forks."""
    _, begun = looking
    mine, parents = (
        {tuple(one) for one in begun[who] if one[1] == rig.store.port} for who in ("mine", "parents")
    )
    assert parents
    assert mine - parents
    holders = {name: rig.client().inspect(name).holders for name in ("looking", "held by the parent")}
    assert {name: [one.owner.pid for one in found] for name, found in holders.items()} == {
        "looking": [begun["pid"]],
        "held by the parent": [worker.pid],
    }
