"""A message that the broker delivers twice: the lock keeps the second run from the first one, and what becomes of it is as declared.

And the counter of retries: waiting for a lock does not use it up.
"""

from __future__ import annotations

import kombu
import pytest

from lockkit.history import falling, overlaps, repeated
from lockkit.testing.processes import until
from support.celery.stage import PATIENCE, period

APP = "support.celery.fleet"
VISIBILITY = 8
"""Seconds after which the broker delivers a message again. Locks have the same ttl."""


@pytest.fixture(scope="module")
def workers(rig):
    environ = {"TEST_QUEUE": "twins", "VISIBILITY": str(VISIBILITY)}
    made = [rig.worker(APP, environ=environ, concurrency=4, ready=False) for _ in range(2)]
    return [worker.until_ready() for worker in made]


@pytest.fixture(scope="module")
def send(rig, workers):
    app = rig.app(APP)

    def to_begin(task, lock, **options):
        sent = app.tasks[f"fleet.{task}"].apply_async((lock,), queue="twins", **options)
        [begun] = rig.stage.wait("begun", sent.id)
        return sent, begun

    return to_begin


def logged(workers, text):
    return sum(worker.words.count(text) for worker in workers)


def judged(told):
    periods = [period(one) for one in told]
    return [*overlaps(periods), *falling(periods), *repeated(periods)]


needs_quick_copies = pytest.mark.skipif(
    kombu.VERSION[:2] < (5, 7), reason="this kombu looks for unacknowledged messages only each 100 s"
)


@pytest.fixture(scope="module")
def delivered_twice(rig, workers, send):
    """One task of each policy whose message came a second time while it was at work, and which then ended."""
    runs = {task: send(task, f"twice-{task}") for task in ("work", "once", "single")}
    ids = {task: sent.id for task, (sent, _) in runs.items()}
    for task in ("once", "single"):
        until(
            lambda task=task: logged(workers, f"[{ids[task]}] is dropped: another delivery of its message"),
            f"the copy of {task} came",
            2 * PATIENCE,
        )
    until(lambda: logged(workers, f"[{ids['work']}] waits for"), "the copy of work came", 2 * PATIENCE)
    for sent, _ in runs.values():
        rig.stage.say(sent.id, "done")
    return ids


@needs_quick_copies
@pytest.mark.parametrize("task", ["once", "single"])
def test_a_copy_is_dropped_and_the_first_run_does_the_work(rig, send, delivered_twice, task):
    [told] = rig.stage.wait("held", delivered_twice[task])
    assert told["word"] == "done"
    assert len(rig.stage.events("begun", delivered_twice[task])) == 1
    app = rig.app(APP)
    until(
        lambda: app.AsyncResult(delivered_twice[task]).state == "SUCCESS", "the first run has ended", PATIENCE
    )
    assert app.AsyncResult(delivered_twice[task]).result == "done"


@needs_quick_copies
def test_a_copy_that_is_retried_runs_after_the_first_run_with_a_higher_fence(rig, delivered_twice):
    told = rig.stage.wait("held", delivered_twice["work"], count=2)
    assert [one["word"] for one in told] == ["done", "again"]
    assert told[0]["fence"] < told[1]["fence"]
    assert judged(told) == []


def test_a_lost_process_is_dead_before_its_message_runs_again(rig, send):
    sent, begun = send("work", "lost")
    rig.stage.say(sent.id, "kill")
    [told] = rig.stage.wait("held", sent.id, patience=2 * PATIENCE)
    [_, second] = rig.stage.events("begun", sent.id)
    assert (told["word"], second["alive"]) == ("again", [])
    assert begun["fence"] < second["fence"]
    assert sent.get(timeout=PATIENCE) == "again"


def test_a_task_that_its_time_limit_has_killed_is_dead_before_its_message_runs_again(rig, send):
    sent, begun = send("work", "limited", time_limit=3)
    [told] = rig.stage.wait("held", sent.id, patience=2 * PATIENCE)
    [_, second] = rig.stage.events("begun", sent.id)
    assert (told["word"], second["alive"]) == ("again", [])
    assert begun["fence"] < second["fence"]


def test_waiting_uses_up_none_of_the_retries_of_a_task(rig, workers):
    with rig.client(ttl=VISIBILITY).lock("flaky").acquire():
        sent = rig.app(APP).tasks["fleet.flaky"].apply_async(("flaky",), queue="twins")
        # The task has two retries of its own, and waits more often than that.
        until(
            lambda: logged(workers, f"[{sent.id}] waits for") >= 4,
            "the task has waited four times",
            2 * PATIENCE,
        )
    with pytest.raises(ValueError, match="told to fail"):
        sent.get(timeout=2 * PATIENCE)
    told = rig.stage.events("held", sent.id)
    assert [one["retries"] for one in told] == [0, 1, 2]
    assert told[0]["tries"] >= 4
    assert logged(workers, "MaxRetriesExceeded") == 0
