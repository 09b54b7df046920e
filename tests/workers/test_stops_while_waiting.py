"""A worker that stops while its task waits for the lock: the task waits in the next worker instead."""

from __future__ import annotations

import signal

import pytest

from lockkit.testing.processes import until
from support.celery.stage import PATIENCE

APP = "support.celery.fleet"


@pytest.fixture
def start(rig):
    """Start a worker that takes the messages of one queue."""
    return lambda queue, pool: rig.worker(APP, environ={"TEST_QUEUE": queue}, pool=pool, concurrency=2)


@pytest.fixture
def send(rig):
    app = rig.sender()
    return lambda task, lock, queue: app.send_task(f"fleet.{task}", (lock,), queue=queue)


def until_waiting(client, lock, worker):
    until(
        lambda: any(claim.owner.worker == worker.nodename for claim in client.inspect(lock).waiters),
        f"a task of {worker.name} waits",
        PATIENCE,
    )


@pytest.mark.parametrize("pool", ["prefork", "threads"])
@pytest.mark.parametrize("task", ["waiting", "early"])
def test_the_wait_ends_and_goes_on_in_the_next_worker_while_a_function_runs_to_its_end(
    rig, start, send, pool, task
):
    """Acknowledged late or early. The lock does not come free before the first worker has ended."""
    lock = f"{task}-{pool}"
    client, first = rig.client(), start(lock, pool)
    with client.lock(lock).acquire() as held:
        running = send("work", f"{lock}, another", lock)
        rig.stage.wait("begun", running.id)
        waits = send(task, lock, lock)
        until_waiting(client, lock, first)

        first.signal(signal.SIGTERM)

        until(lambda: not client.inspect(lock).waiters, "the wait has ended", PATIENCE)
        assert client.inspect(f"{lock}, another").holders
        rig.stage.say(running.id, "done")
        assert first.wait() == 0
        assert running.get(timeout=PATIENCE) == "done"
        assert rig.stage.events("begun", waits.id) == []

        next_one = start(lock, pool)
        until_waiting(client, lock, next_one)
        held.release()
    rig.stage.wait("begun", waits.id)
    rig.stage.say(waits.id, "done")
    assert waits.get(timeout=PATIENCE) == "done"
    next_one.signal(signal.SIGTERM)
    assert next_one.wait() == 0
    assert len(rig.stage.events("begun", waits.id)) == 1
    assert not client.inspect(lock).claims
    assert rig.broker.cli("LLEN", lock) == 0
