"""The broker, or the store of the locks, restarts while tasks wait and run."""

from __future__ import annotations

import pytest

from lockkit.errors import LeaseLost
from lockkit.testing.processes import until
from lockkit.values.history import falling, overlaps, repeated
from support.celery.stage import PATIENCE, period

APP = "support.celery.fleet"
VISIBILITY = 8
COUNT = 20


@pytest.fixture(scope="module")
def broker():
    from support.servers.redis import RedisServer

    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def lock_store():
    from support.servers.redis import RedisServer

    with RedisServer(appendonly="yes", appendfsync="always") as server:
        yield server


@pytest.fixture(scope="module")
def standing(rig):
    """A server that does not restart, for what tasks and tests tell each other."""
    from support.celery.stage import Stage
    from support.servers.redis import RedisServer

    with RedisServer() as server:
        rig.environ["STAGE_URL"] = server.url()
        rig.stage = Stage(server.url())
        yield server


@pytest.fixture(scope="module")
def worker(rig, standing):
    environ = {"TEST_QUEUE": "restarts", "VISIBILITY": str(VISIBILITY)}
    return rig.worker(APP, environ=environ, concurrency=3)


@pytest.fixture(scope="module")
def send(rig, worker):
    app = rig.sender()
    return lambda task, *args: app.send_task(f"fleet.{task}", args, queue="restarts")


def judged(told):
    periods = [period(one) for one in told]
    return [*overlaps(periods), *falling(periods), *repeated(periods)]


def numbers(rig, lock):
    return {one["number"] for one in rig.stage.events("held") if one["lock"] == lock and "number" in one}


def test_the_broker_restarts_and_all_tasks_are_served(rig, send):
    """The worker is full: kombu takes a message in two steps, and loses one if the broker ends between."""
    full = [send("work", lock) for lock in ("broker", "broker, too", "broker, three")]
    for first in full:
        rig.stage.wait("begun", first.id)
    for number in range(COUNT):
        send("turn", "broker", number)
    rig.broker.restart(lose_data=False)
    for first in full:
        rig.stage.say(first.id, "done")
    until(lambda: numbers(rig, "broker") == {*range(COUNT)}, "all are served", 3 * PATIENCE)
    told = [one for one in rig.stage.events("held") if one["lock"] == "broker"]
    assert judged(told) == []


def test_the_store_restarts_with_its_file_and_the_holder_keeps_its_lock(rig, send):
    first = send("work", "store")
    rig.stage.wait("begun", first.id)
    for number in range(COUNT):
        send("turn", "store", number)
    rig.store.kill()
    rig.store.start()
    rig.stage.say(first.id, "done")
    assert first.get(timeout=PATIENCE) == "done"
    until(lambda: numbers(rig, "store") == {*range(COUNT)}, "all are served", 3 * PATIENCE)
    told = [one for one in rig.stage.events("held") if one["lock"] == "store"]
    assert judged(told) == []
    assert len(told) == COUNT + 1


def test_the_store_restarts_empty_and_the_first_result_is_refused(rig, worker, send):
    """The remaining promise: the next renewal warns the first holder, and the second has a higher fence."""
    first = send("work", "emptied")
    [begun] = rig.stage.wait("begun", first.id)
    rig.store.restart(lose_data=True)
    second = send("work", "emptied")
    [after] = rig.stage.wait("begun", second.id)
    assert begun["fence"] < after["fence"]
    until(lambda: rig.client().inspect("emptied").holders, "the second one holds", PATIENCE)
    rig.stage.say(second.id, "done")
    assert second.get(timeout=PATIENCE) == "done"
    worker.until_logged("the hold of 'emptied'")
    rig.stage.say(first.id, "done")
    with pytest.raises(LeaseLost):
        first.get(timeout=PATIENCE)
