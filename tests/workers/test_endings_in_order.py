"""Tasks that end by themselves or by Celery in an orderly way: their process releases, with the reason."""

from __future__ import annotations

import pytest

from lockkit.testing.processes import until

APP = "support.celery.endings"

ENDINGS = {
    "return": "normal",
    "error": "task_failure",
    "retry": "retry",
    "ignore": "ignore",
    "reject": "reject",
    "exit": "exit",
}
"""The ways in which the function of a task ends, with the reason for which its lock is released."""


@pytest.fixture(scope="module", params=["prefork", "threads", "solo"])
def pool(request, rig):
    """A worker with a pool of a kind."""
    queue = f"order-{request.param}"
    environ = {"TEST_QUEUE": queue, "LOCKKIT_JOURNAL": "true"}
    with rig.worker(APP, pool=request.param, environ=environ):
        yield request.param


def play(rig, pool, how, **options):
    """Start a task that holds a lock of its own. Returns the name of the lock, and the task."""
    lock = f"{pool}-{how}"
    task = rig.app(APP).tasks["endings.play"]
    sent = task.apply_async((lock, how), queue=f"order-{pool}", **options)
    rig.stage.wait("holds", sent.id)
    return lock, sent


def is_free(client, lock):
    until(lambda: not client.inspect(lock).claims, f"{lock} is free", 40)


@pytest.mark.parametrize("how", ENDINGS)
def test_the_lock_is_released_for_a_reason(rig, pool, how):
    if how == "exit" and pool == "solo":
        pytest.skip("SystemExit ends a worker of this pool")
    lock, sent = play(rig, pool, how)
    if how in ("return", "retry"):
        if how == "retry":
            rig.stage.wait("holds", sent.id, count=2)
        rig.stage.say(sent.id)
    reasons = ["retry", "normal"] if how == "retry" else [ENDINGS[how]]
    if how == "exit" and pool == "prefork":
        is_evicted(rig, lock, "exit: ")
    else:
        until(lambda: rig.released(lock) == reasons, f"{reasons} are on record for {lock}", 40)
    is_free(rig.client(), lock)


def is_evicted(rig, lock, reason):
    """By the main process, which alone can prove that nothing works on that the task has started."""
    until(
        lambda: [one.startswith(reason) for one in rig.released(lock)] == [True], f"an eviction: {reason}", 40
    )


def test_a_soft_time_limit_is_an_exception_in_the_task(rig, pool):
    if pool != "prefork":
        pytest.skip("only processes have time limits")
    lock, _ = play(rig, pool, "wait", soft_time_limit=1)
    until(lambda: rig.released(lock) == ["soft_time_limit"], "the reason is on record", 40)
    is_free(rig.client(), lock)


def test_a_revocation_with_terminate_ends_the_task_in_its_process(rig, pool):
    if pool != "prefork":
        pytest.skip("only a process can be terminated")
    lock, sent = play(rig, pool, "spin")
    sent.revoke(terminate=True)
    is_evicted(rig, lock, "revoked: ")
    is_free(rig.client(), lock)


def test_a_revocation_without_terminate_leaves_a_task_that_runs_alone(rig, pool):
    if pool == "solo":
        pytest.skip("a worker of this pool hears of a revocation when the task has ended")
    lock, sent = play(rig, pool, "revoke-only")
    sent.revoke()
    rig.app(APP).control.ping(timeout=1)  # answered behind the revocation
    assert rig.client().inspect(lock).holders
    rig.stage.say(sent.id)
    until(lambda: rig.released(lock) == ["normal"], "the reason is on record", 40)
