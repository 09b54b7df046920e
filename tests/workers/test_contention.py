"""A hundred tasks that want one lock, in pools of processes and threads: all served once, in turn.

The checker of histories judges the times that the tasks' functions report while they hold the lock.
"""

from __future__ import annotations

import pytest

from lockkit.values.history import falling, overlaps, repeated
from support.celery.stage import PATIENCE, period

pytestmark = pytest.mark.timeout(
    900
)  # three hundred tasks that pause between their tries, of which each takes long on a busy machine
CROWDS = [("prefork", 50), ("prefork", 100), ("threads", 50), ("threads", 100)]


@pytest.fixture(scope="module")
def crowds(rig):
    """All tasks of all crowds, sent at once: each crowd has a lock and a worker of its own."""
    app = rig.app("support.celery.fleet")
    workers = [
        rig.worker(
            "support.celery.fleet",
            environ={"TEST_QUEUE": f"{pool}-{count}"},
            pool=pool,
            concurrency=3,
            ready=False,
        )
        for pool, count in CROWDS
    ]  # fmt: skip
    for worker in workers:
        worker.until_ready()
    return {
        (pool, count): [
            app.tasks["fleet.turn"].apply_async((f"{pool}-{count}", number), queue=f"{pool}-{count}")
            for number in range(count)
        ]
        for pool, count in CROWDS
    }


@pytest.mark.parametrize("pool, count", CROWDS)
def test_all_are_served_none_twice_and_no_two_at_once(rig, crowds, pool, count):
    sent = crowds[pool, count]
    assert [one.get(timeout=15 * PATIENCE) for one in sent] == list(range(count))
    told = [one for one in rig.stage.events("held") if one["lock"] == f"{pool}-{count}"]
    assert sorted(one["number"] for one in told) == list(range(count))
    periods = [period(one) for one in told]
    assert (overlaps(periods), falling(periods), repeated(periods)) == ([], [], [])
    assert any(one["tries"] for one in told), "nobody had to wait, so this shows nothing"
    assert {one["retries"] for one in told} == {0}
    assert not rig.client().inspect(f"{pool}-{count}").claims
