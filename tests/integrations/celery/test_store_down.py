"""Tasks while the store of locks cannot be used."""

from __future__ import annotations

import logging

import pytest
from celery.states import FAILURE, RETRY

from lockkit.errors import BackendUnavailable, ConfigError, NotHeld
from lockkit.integrations.celery import LockedTask
from lockkit.integrations.celery.clients import client_of

pytest.importorskip("redis")


@pytest.fixture
def down(app):
    """The application, whose locks are on a server that does not run."""
    app.conf.lockkit_url = "redis://127.0.0.1:1/0"
    app.conf.lockkit_request_timeout = 0.5
    return app


def test_a_task_that_is_retried_while_busy_is_retried(down, deliver, queued):
    @down.task(base=LockedTask, lock="a")
    def work(): ...

    assert deliver(work).info.state == RETRY
    assert len(queued()) == 1


def test_every_other_task_fails(down, deliver):
    @down.task(base=LockedTask, lock="a", on_busy="skip")
    def work(): ...

    done = deliver(work)
    assert done.info.state == FAILURE
    assert isinstance(done.info.retval, BackendUnavailable)


def test_a_task_that_says_so_runs_without_its_lock_and_each_time_is_logged_and_counted(down, deliver, caplog):
    @down.task(bind=True, base=LockedTask, lock="a", on_unavailable="run", name="proj.work")
    def work(self):
        with pytest.raises(NotHeld):
            self.lease  # noqa: B018
        return "ran"

    with caplog.at_level(logging.WARNING, "lockkit"):
        assert deliver(work).retval == "ran"
        assert deliver(work).retval == "ran"

    told = [
        record.getMessage() for record in caplog.records if "RUNS WITHOUT ITS LOCK" in record.getMessage()
    ]
    assert len(told) == 2
    assert "proj.work[" in told[0]
    assert "'a'" in told[0]
    assert client_of(down).stats()["ran_unlocked"] == 2


@pytest.mark.parametrize(
    "key, hint", [("lockkit_urll", "did you mean lockkit_url?"), ("lockkit_zzz", "lockkit docs config")]
)
def test_a_setting_that_lockkit_does_not_have_is_refused(app, key, hint):
    app.conf[key] = "x"
    with pytest.raises(ConfigError, match="which is no setting of lockkit") as refused:
        client_of(app)
    assert hint in str(refused.value)


def test_settings_may_have_the_prefix_of_the_application(app):
    class Settings:
        CELERY_BROKER_URL = "memory://"
        CELERY_LOCKKIT_URL = "memory://prefixed"

    from celery import Celery

    other = Celery("other", set_as_current=False)
    other.config_from_object(Settings, namespace="CELERY")
    assert client_of(other).url == "memory://prefixed"


def test_an_application_has_one_client_and_another_one_once_that_is_closed(app):
    first = client_of(app)
    assert client_of(app) is first
    first.close()
    assert client_of(app) is not first
