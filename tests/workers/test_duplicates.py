"""A message that is delivered twice: the lock holds off the second run, which ends as declared.

And the counter of retries: waiting for a lock does not use it up.
"""

from __future__ import annotations

import kombu
import pytest

from lockkit.testing.processes import until
from lockkit.values.history import falling, overlaps, repeated
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

    def to_begin(task, lock, queue="twins", **options):
        sent = app.tasks[f"fleet.{task}"].apply_async((lock,), queue=queue, **options)
        [begun] = rig.stage.wait("begun", sent.id)
        return sent, begun

    return to_begin


def logged(workers, text):
    return sum(worker.words.count(text) for worker in workers)


def judged(told):
    held = [period(one) for one in told]
    return [*overlaps(held), *falling(held), *repeated(held)]


def deliver_again(rig, task_id):
    """Do as the broker after the visibility timeout: queue the message of a running task once more."""
    with kombu.Connection(rig.environ["BROKER_URL"]) as connection:
        qos = connection.default_channel.qos
        [tag] = [tag for tag, message in unacked(qos).items() if task_id in message]
        qos.restore_by_tag(tag)


def unacked(qos):
    with qos.channel.conn_or_acquire() as client:
        return {tag.decode(): message.decode() for tag, message in client.hgetall(qos.unacked_key).items()}


def nothing_left(rig, task_id, queue):
    """Whether neither the queue nor a worker has the message."""
    with kombu.Connection(rig.environ["BROKER_URL"]) as connection:
        qos = connection.default_channel.qos
        with qos.channel.conn_or_acquire() as client:
            queued = [message.decode() for message in client.lrange(queue, 0, -1)]
        return not any(task_id in message for message in (*queued, *unacked(qos).values()))


def came_back(workers, task_id):
    """How often a copy of a message has gone back to the queue."""
    lines = [line for worker in workers for line in worker.words.splitlines()]
    return sum(task_id in line and "another delivery of this message holds" in line for line in lines)


def until_back(workers, task_id):
    until(lambda: came_back(workers, task_id) >= 2, "the copy went back twice", 2 * PATIENCE)


def test_a_copy_is_dropped_where_the_task_says_so_and_the_first_run_does_the_work(rig, workers, send):
    sent, _ = send("single", "single")
    deliver_again(rig, sent.id)
    until(
        lambda: logged(workers, f"[{sent.id}] is dropped: another delivery of its message"),
        "the copy came",
        2 * PATIENCE,
    )
    rig.stage.say(sent.id, "done")
    assert sent.get(timeout=PATIENCE) == "done"
    assert len(rig.stage.events("begun", sent.id)) == 1


@pytest.mark.parametrize("task", ["work", "once", "waiting"])
def test_a_copy_goes_back_to_its_queue_until_the_first_run_has_ended_and_makes_no_message(
    rig, workers, send, task
):
    sent, _ = send(task, f"twice-{task}")
    deliver_again(rig, sent.id)
    until_back(workers, sent.id)
    rig.stage.say(sent.id, "done")
    rig.stage.wait("held", sent.id)
    until(lambda: nothing_left(rig, sent.id, "twins"), "the message is gone", 2 * PATIENCE)
    told = rig.stage.events("held", sent.id)
    # The copy runs as well if it lay in the queue at the moment at which the first run was acknowledged.
    assert [one["word"] for one in told] in (["done"], ["done", "again"])
    assert [one["tries"] for one in told] == [0] * len(told)
    assert sent.get(timeout=PATIENCE) == "done"  # Celery keeps the result of a task that has succeeded
    assert judged(told) == []


def test_a_copy_goes_back_to_its_queue_from_a_pool_of_threads_too(rig, send):
    worker = rig.worker(APP, environ={"TEST_QUEUE": "threads"}, pool="threads", concurrency=2)
    sent, _ = send("work", "threads", queue="threads")
    deliver_again(rig, sent.id)
    until_back([worker], sent.id)
    rig.stage.say(sent.id, "done")
    until(lambda: nothing_left(rig, sent.id, "threads"), "the message is gone", 2 * PATIENCE)
    assert len(rig.stage.events("held", sent.id)) in (1, 2)


def test_a_copy_does_the_work_of_a_lost_process_where_busy_tasks_are_skipped(rig, workers, send):
    sent, begun = send("once", "lost-and-skipped")
    deliver_again(rig, sent.id)
    until_back(workers, sent.id)
    rig.stage.say(sent.id, "kill")
    told = rig.stage.wait("held", sent.id, patience=2 * PATIENCE)[0]
    # The message of the lost process comes back, too, and may run after its copy.
    second = rig.stage.events("begun", sent.id)[1]
    assert (told["word"], second["alive"]) == ("again", [])
    assert begun["fence"] < second["fence"]
    assert sent.get(timeout=PATIENCE) == "again"
    until(lambda: nothing_left(rig, sent.id, "twins"), "the message is gone", 2 * PATIENCE)


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
