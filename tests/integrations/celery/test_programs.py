"""The environment that the programs of a task inherit says which locks the task holds."""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import os
import threading

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from lockkit.errors import ConfigError
from lockkit.guard import run_lease
from lockkit.integrations.celery import LockedTask
from lockkit.integrations.celery.running import held_by
from lockkit.testing.interrupts import Bomb

VARIABLES = (
    "LOCKKIT_LEASE_NAME",
    "LOCKKIT_LEASE_TOKEN",
    "LOCKKIT_LEASE_FENCE",
    "LOCKKIT_LEASE_NAMES",
    "LOCKKIT_POOL_MEMBERS",
    "LOCKKIT_HELD",
)


def told():
    """The variables that a program would inherit now."""
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


def names():
    return [hold["name"] for hold in json.loads(os.environ["LOCKKIT_HELD"])]


@pytest.fixture(params=["direct", "message"])
def play(request, deliver):
    """Run a task, called directly or by a message."""
    return (lambda task: task()) if request.param == "direct" else (lambda task: deliver(task).retval)


def test_a_program_knows_the_lock_and_its_fence_but_not_the_token(app, play):
    @app.task(bind=True, base=LockedTask, lock="a")
    def work(self):
        lease = self.lease
        [hold] = json.loads(os.environ["LOCKKIT_HELD"])
        assert (hold["name"], hold["claim_id"], hold["fence"]) == ("a", lease.claim_id, lease.fence)
        assert lease.token not in str(told())
        assert (run_lease().name, run_lease().fence, run_lease().exclusive) == ("a", lease.fence, True)
        return told()["LOCKKIT_LEASE_FENCE"] == str(lease.fence)

    assert play(work) is True
    assert told() == {}


def test_the_holds_around_the_worker_come_before_and_everything_is_put_back(app, play, monkeypatch):
    inherited = {
        "LOCKKIT_HELD": '[{"name": "worker", "fence": 3}]',
        "LOCKKIT_LEASE_NAME": "worker",
        "LOCKKIT_LEASE_TOKEN": "secret",
        "LOCKKIT_LEASE_FENCE": "3",
        "LOCKKIT_LEASE_NAMES": "worker",
    }
    for name, value in inherited.items():
        monkeypatch.setenv(name, value)

    @app.task(base=LockedTask, lock="a")
    def work():
        assert "LOCKKIT_LEASE_TOKEN" not in told()
        assert (run_lease("worker").fence, run_lease().name) == (3, "a")
        return names()

    @app.task(base=LockedTask, lock="a")
    def fails():
        raise ValueError(str(names()))

    assert play(work) == ["worker", "a"]
    assert told() == inherited
    with pytest.raises(ValueError, match="'worker', 'a'"):
        fails()
    assert told() == inherited


def test_a_task_inside_a_task_adds_its_lock_and_takes_only_that_away(app, play):
    @app.task(base=LockedTask, lock="inner")
    def inner():
        return names()

    @app.task(base=LockedTask, lock="outer")
    def outer():
        before = told()
        assert inner() == ["outer", "inner"]
        return told() == before and names()

    assert play(outer) == ["outer"]
    assert told() == {}


def test_a_task_of_another_thread_leaves_the_environment_to_those_that_run_beside_it(app):
    @app.task(base=LockedTask, lock="a")
    def work():
        seen.append(told())

    seen = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [{}]


def test_the_members_of_a_pool_are_told_one_on_each_line(app, play):
    @app.task(bind=True, base=LockedTask, pool="licences", members=["x", "y", "z"], count=2)
    def work(self):
        assert os.environ["LOCKKIT_POOL_MEMBERS"].split("\n") == list(self.leases.members)
        assert "LOCKKIT_LEASE_NAME" not in told()
        with pytest.raises(ConfigError, match="has several locks"):
            run_lease()
        return [run_lease(name).fence for name in names()] == [lease.fence for lease in self.leases]

    assert play(work) is True


class Limit(Bomb):
    """A soft time limit at the n-th place of what tells the environment of a lock."""

    def __init__(self, at):
        super().__init__(at, error=SoftTimeLimitExceeded)

    def _ours(self, frame):
        return frame.f_globals.get("__name__") in (
            "contextlib",
            "lockkit.lib.environment",
            "lockkit.integrations.celery.exporting",
            "lockkit.integrations.celery.running",
            "lockkit.protocol.outer",
        )


@pytest.mark.filterwarnings("ignore:Exception raised outside body:RuntimeWarning")
def test_a_soft_time_limit_leaves_nothing_of_a_lock_in_the_environment_wherever_it_strikes(
    app, client, deliver, monkeypatch
):
    @app.task(base=LockedTask, lock="a", on_busy="fail")
    def work():
        return names()

    ended = []
    for at in itertools.count(1):
        bomb = Limit(at)
        with contextlib.suppress(SoftTimeLimitExceeded), bomb:
            ended.append(deliver(work))
        assert told() == {}, bomb.where
        assert held_by(work.name) is None, bomb.where
        assert not client.inspect("a").holders, bomb.where
        with monkeypatch.context() as later:  # a later task of this process
            later.setenv("LOCKKIT_HELD", "[]")
            ended.clear()
            gc.collect()
            assert told() == {"LOCKKIT_HELD": "[]"}, f"what was struck undoes it later: {bomb.where}"
        if not bomb.where:
            break
    assert at > 50
