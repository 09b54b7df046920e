"""Scenarios 8 to 15 of the old GPU lock, in a real worker: a failed task's hook gives its card back.

The old hook released with another token than that of the lock, ignored the result and logged success.
Here the task has already released its card when the hook runs, and the hook finds that out.
"""

from __future__ import annotations

import json
import os

import pytest

from lockkit.gpu.simulated import SimulatedProvider
from lockkit.notes.members import pool_name
from lockkit.testing.processes import until
from support.celery.stage import PATIENCE

APP = "support.celery.hooks"
CARDS = [
    pool_name(f"gpu-sim/{os.uname().nodename}", one.uuid) for one in SimulatedProvider(2).snapshot().devices
]


@pytest.fixture(scope="module")
def lock_store():
    from support.servers.redis import RedisServer

    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def worker(rig):
    config = rig.folder / "lockkit.toml"
    config.write_text("[journal]\nenabled = true\n")
    environ = {"TEST_QUEUE": "hooks", "LOCKKIT_GPU_SIMULATE": "2", "LOCKKIT_CONFIG": str(config)}
    return rig.worker(APP, environ=environ, concurrency=1)


@pytest.fixture
def play(rig, worker):
    """Run a task to its end. Returns its id, and its result, which may be an exception."""
    app = rig.app(APP)

    def run(task, how):
        sent = app.tasks[f"hooks.{task}"].apply_async((how,), queue="hooks")
        return sent.id, sent.get(timeout=PATIENCE, propagate=False)

    return run


@pytest.fixture
def hook_of(rig):
    """Wait for the end of a task's hook, which runs after the result. Returns what the hook has released."""
    return lambda task_id: rig.stage.wait("hook done", task_id)[0]["released"]


@pytest.fixture
def releases(rig):
    """Wait for the next releases of a card: their reasons."""

    def of(name):
        path = rig.folder / "state" / "journal" / "events.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines() if line] if path.exists() else []
        return [row["reason"] for row in rows if row["kind"] == "released" and row["name"] == name]

    before = {name: len(of(name)) for name in CARDS}

    def new(name, count=1):
        until(lambda: len(of(name)) >= before[name] + count, f"{name} is released", PATIENCE)
        return of(name)[before[name] :]

    return new


def test_8_a_failure_releases_once_with_the_reason_task_failure(play, hook_of, releases):
    failed, result = play("first", "fail")
    assert isinstance(result, ValueError)
    assert hook_of(failed) is True
    play("first", "ok")  # the next release is in the journal, so no further one of the failure is missing
    assert releases(CARDS[0], 2) == ["task_failure", "normal"]


@pytest.mark.parametrize("task", ["by_id", "unbound"])
def test_8_so_does_a_hook_that_passes_the_id_of_the_task(play, hook_of, releases, task):
    for _ in range(2):
        assert hook_of(play(task, "fail")[0]) is True
    assert releases(CARDS[0], 2) == ["task_failure"] * 2


def test_8_so_does_a_failure_of_a_locked_task_which_needs_no_hook(play, releases):
    _, result = play("locked", "fail")
    assert isinstance(result, ValueError)
    assert releases(CARDS[0]) == ["task_failure"]


def test_9_the_default_is_device_0(play, releases):
    play("first", "fail")
    assert releases(CARDS[0]) == ["task_failure"]


def test_10_another_device_is_released_and_no_other(play, hook_of, releases):
    failed, _ = play("second", "fail")
    assert hook_of(failed) is True
    assert releases(CARDS[1]) == ["task_failure"]
    assert releases(CARDS[0], 0) == []


def test_11_there_is_no_attribute_error(worker, play, hook_of):
    for task in ("first", "second"):
        assert hook_of(play(task, "fail")[0]) is True
    assert "AttributeError" not in worker.words


def test_12_a_mistake_of_the_hook_does_not_mask_the_error_of_the_task(rig, worker, play, releases):
    failed, result = play("wrong", "fail")
    assert isinstance(result, ValueError)
    worker.until_logged("release_reason must be one of")
    assert isinstance(rig.app(APP).AsyncResult(failed).result, ValueError)
    assert releases(CARDS[0]) == ["task_failure"]


def test_13_without_a_lock_the_hook_raises_no_error(worker, play, hook_of):
    failed, result = play("unlocked", "fail")
    assert isinstance(result, ValueError)
    assert hook_of(failed) is False
    worker.until_logged(
        "hooks.unlocked holds no lock of gpu_lock:0 here, so nothing is released (task_failure)"
    )


def test_15_a_success_is_left_alone(rig, play, releases):
    done, result = play("first", "fine")
    assert result == "fine"
    assert releases(CARDS[0]) == ["normal"]
    play("first", "fine")  # a hook of the first one would have run before this one began
    assert rig.stage.events("hook", done) == []


def test_14_a_release_that_fails_is_logged_and_the_error_of_the_task_stays(rig, worker):
    """The last one, because the store does not come back."""
    sent = rig.app(APP).tasks["hooks.first"].apply_async(("wait",), queue="hooks")
    rig.stage.wait("begun", sent.id)
    rig.store.kill()
    rig.stage.say(sent.id, "fail")
    assert isinstance(sent.get(timeout=2 * PATIENCE, propagate=False), ValueError)
    worker.until_logged("got no definite answer")
