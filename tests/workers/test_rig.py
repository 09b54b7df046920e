"""The rig itself: a worker takes tasks from the private broker, and meets the test on the stage."""

import pytest


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_worker_of_either_pool_meets_the_test(rig, pool):
    queue = f"meet-{pool}"
    worker = rig.worker(pool=pool, environ={"TEST_QUEUE": queue})
    sent = rig.app().send_task("plain.meet", queue=queue)
    [begun] = rig.stage.wait("begun", sent.id)
    assert (begun["pid"] == worker.pid) == (pool == "threads")
    rig.stage.say(sent.id, "hello")
    assert sent.get(timeout=40) == "hello"
