"""Findings of ``lockkit doctor --celery``: each row of the table, with an app that has the mistake or not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("celery")

from celery import Celery
from celery.concurrency import get_implementation
from celery.signals import worker_init

from lockkit.errors import ConfigError
from lockkit.integrations.celery import LockedTask, fitting_app, worker_pool
from lockkit.integrations.celery.checks import ROWS, findings_of
from lockkit.integrations.celery.clients import close_clients
from lockkit.integrations.celery.reading_app import examine, locked_tasks, setup_of

SHORT = {"broker_transport_options": {"visibility_timeout": 45}}
"""A visibility timeout below lockkit's own ttl for tasks."""
LATE = {"acks_late": True, "time_limit": 600}


class Case:
    """One row, with what must be found and what must not.

    Args:
        name: The row.
        bad: The options of a task that has the mistake.
        good: The options that mend it.
        conf: The configuration of both apps.
        mended: What the second app has in its configuration instead.
        says: A part of the sentence.
    """

    def __init__(self, name, bad, good, says, *, conf=None, mended=None):
        self.name, self.bad, self.good, self.says = name, bad, good, says
        self.conf = conf or {}
        self.mended = self.conf if mended is None else mended


EMBEDDED = {"broker_url": "amqp://box", "lockkit_url": "sqlite:/nowhere/locks.db"}
MEMORY = {"lockkit_url": "memory:"}
OWN = "support.celery.own_pools:Own{}"
NEAR = {**EMBEDDED, "broker_url": "redis://127.0.0.1:1"}
WAIT = {"on_busy": "wait", "max_wait": 120}
CASES = [
    Case("pool", {}, {}, "gevent", conf={"worker_pool": "gevent"}, mended={"worker_pool": "threads"}),
    Case("pool", {}, {}, "eventlet", conf={"worker_pool": "eventlet"}, mended={}),
    Case(
        "ttl",
        {"ttl": 46},
        {"ttl": 45},
        "a ttl of 46 s, above the broker's visibility timeout of 45 s",
        conf=SHORT,
    ),
    Case("ttl", {}, {"ttl": 30}, "a ttl of 60 s", conf=SHORT),
    Case("ttl", {"ttl": 3601}, {"ttl": 3600}, "visibility timeout of 60 min"),
    Case("ttl", {"ttl": 1801}, {"ttl": 1800}, "visibility timeout of 30 min", conf={"broker_url": "sqs://"}),
    Case(
        "own-countdown",
        {"ttl": 30, "autoretry_for": (OSError,)},
        {"ttl": 30, "autoretry_for": (OSError,), "default_retry_delay": 10},
        "up to 3 min between its own retries",
        conf=SHORT,
    ),
    Case(
        "own-countdown",
        {"ttl": 30, "autoretry_for": (OSError,), "retry_backoff": True},
        {"ttl": 30, "autoretry_for": (OSError,), "retry_backoff": True, "retry_backoff_max": 44},
        "up to 10 min between its own retries",
        conf=SHORT,
    ),
    Case(
        "time-limit",
        {"max_hold": 60, "time_limit": 61},
        {"max_hold": 60, "time_limit": 60},
        "time_limit of 61 s",
    ),
    Case(
        "time-limit",
        {"max_hold": 60, "time_limit": 50},
        {"max_hold": 60, "time_limit": 50, "soft_time_limit": 40},
        "time_limit of 61 s",
        conf={"task_soft_time_limit": 61},
    ),
    Case(
        "no-time-limit",
        {"max_hold": 60},
        {"max_hold": 60, "time_limit": 60},
        "max_hold of 60 s and no time limit",
    ),
    Case(
        "no-time-limit",
        {"max_hold": 60, "time_limit": 60},
        {"max_hold": 60, "time_limit": 60},
        "may go on without its lock",
        conf={"worker_pool": "threads"},
        mended={},
    ),
    Case(
        "soft-time-limit",
        {"time_limit": 60, "soft_time_limit": 60},
        {"time_limit": 60, "soft_time_limit": 50},
        "soft time limit of 60 s",
    ),
    Case(
        "unenforced", {"time_limit": 60}, {}, "the threads pool ends no task", conf={"worker_pool": "threads"}
    ),
    Case(
        "unenforced", {"soft_time_limit": 60}, {}, "the solo pool ends no task", conf={"worker_pool": "solo"}
    ),
    Case("solo", WAIT, {"on_busy": "retry"}, "in the solo pool", conf={"worker_pool": "solo"}),
    Case(
        "solo",
        WAIT,
        WAIT,
        "in the solo pool",
        conf={"worker_pool": "celery.concurrency.solo:TaskPool"},
        mended={},
    ),
    Case(
        "one-slot",
        WAIT,
        WAIT,
        "one task at a time",
        conf={"worker_concurrency": 1},
        mended={"worker_concurrency": 2},
    ),
    Case("prefetch", WAIT, WAIT, "4 messages", mended={"worker_prefetch_multiplier": 1}),
    Case(
        "prefetch",
        WAIT,
        {"on_busy": "retry"},
        "any number of messages",
        conf={"worker_prefetch_multiplier": 0},
    ),
    Case("wait-limit", {**WAIT, "time_limit": 120}, {**WAIT, "time_limit": 121}, "waits up to 2 min"),
    Case(
        "wait-limit", {"on_busy": "wait", "time_limit": 60}, {**WAIT, "time_limit": 300}, "waits without end"
    ),
    Case(
        "wait-limit",
        {**WAIT, "time_limit": 300, "soft_time_limit": 100},
        {**WAIT, "time_limit": 300},
        "limit of 100 s",
    ),
    Case("max-wait", {"max_wait": 59}, {"max_wait": 60}, "waits at most 59 s, less than its ttl of 60 s"),
    Case("max-wait", {"max_wait": 59}, {"max_wait": 59, "ttl": 30}, "gives up"),
    Case("expires", {"expires": 300}, {"expires": 300, "max_wait": 300}, "expires after 5 min"),
    Case("delivered-twice", {"acks_late": True}, {}, "without a time limit"),
    Case("delivered-twice", {**LATE, "time_limit": 3601}, LATE, "for up to 60 min"),
    Case(
        "delivered-twice",
        {"acks_late": True, "on_duplicate": "skip"},
        {**LATE, "on_duplicate": "skip"},
        "the copy is dropped",
    ),
    Case("delivered-twice", {"acks_late": True}, {}, "the copy goes back"),
    Case(
        "delivered-twice",
        LATE,
        LATE,
        "without a time limit",
        conf={"worker_pool": "threads"},
        mended={"broker_url": "amqp://"},
    ),
    Case("reserved", {"time_limit": 901}, {"time_limit": 900}, "4 messages"),
    Case(
        "reserved",
        {"time_limit": 901},
        {"time_limit": 901},
        "4 messages",
        mended={"worker_prefetch_multiplier": 1},
    ),
    Case(
        "lost",
        {**LATE, "reject_on_worker_lost": True, "on_duplicate": "skip"},
        {**LATE, "reject_on_worker_lost": True, "on_busy": "skip"},
        "the work is not done",
    ),
    Case(
        "lost",
        {**LATE, "reject_on_worker_lost": True, "on_duplicate": "skip"},
        {**LATE, "on_duplicate": "skip"},
        "the work is not done",
    ),
    Case(
        "timed-out",
        {**LATE, "acks_on_timeout": False, "on_duplicate": "skip"},
        {**LATE, "acks_on_timeout": False, "on_busy": "fail"},
        "the work is not done",
    ),
    Case(
        "early",
        {"reject_on_worker_lost": True},
        {**LATE, "reject_on_worker_lost": True},
        "reject_on_worker_lost",
    ),
    Case("early", {"acks_on_timeout": False}, {**LATE, "acks_on_timeout": False}, "acks_on_timeout"),
    Case("options", {"min_hold": 60}, {}, "min_hold (60 s)", conf={"lockkit_max_hold": 50}),
    Case("processes", {}, {}, "its lock in memory:", conf=MEMORY, mended=EMBEDDED),
    Case("processes", {}, {}, "locks for itself", conf=MEMORY, mended={**MEMORY, "worker_pool": "threads"}),
    Case("store", {}, {}, "each host then locks for itself", conf=EMBEDDED, mended=NEAR),
    Case("store", {}, {}, "sqlite:/", conf={**EMBEDDED, "broker_url": "sqs://"}, mended=NEAR),
    Case("store", {}, {}, "each host", conf=EMBEDDED, mended={**EMBEDDED, "lockkit_url": "redis://box"}),
    Case("wait-early", WAIT, {**WAIT, "acks_late": True}, "loses it"),
    Case("wait-early", WAIT, {"max_wait": 120}, "loses it"),
    Case("unlocked", {"on_unavailable": "run"}, {}, "without its lock"),
    Case("unseen", {"on_busy": "skip"}, {}, "keeps no result"),
    Case(
        "unseen",
        {"on_busy": "skip", "ignore_result": True},
        {"on_busy": "skip"},
        "keeps no result",
        conf={"result_backend": "cache+memory://"},
    ),
]


def app_with(options, conf):
    app = Celery("proj", set_as_current=False)
    app.conf.update({"broker_url": "redis://localhost:1", "lockkit_url": EMBEDDED["lockkit_url"], **conf})

    @app.task(base=LockedTask, name="bill", shared=False, **{"lock": "bill:{number}", **options})
    def bill(number): ...

    return app


def found(options, conf, row):
    app = app_with(options, conf)
    with fitting_app.unchecked():
        app.finalize()
    tasks = list(locked_tasks(app))
    assert [task.task for task in tasks] == ["bill"]
    return [one for one in findings_of(setup_of(app), tasks) if one.check == f"celery-{row}"]


@pytest.fixture(autouse=True)
def _apart_from_the_tasks_of_other_tests(monkeypatch):
    monkeypatch.setattr("celery._state._on_app_finalizers", set())
    yield
    close_clients()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_mistake_is_found_where_it_is_made_and_only_there(case):
    [finding] = found(case.bad, case.conf, case.name)
    assert finding.message.startswith("task bill ")
    assert case.says in finding.message
    assert finding.hint
    assert not found(case.good, case.mended, case.name)


def test_every_row_has_a_case():
    assert {case.name for case in CASES} == {row.name for row in ROWS}


def test_the_defaults_of_celery_and_lockkit_are_no_mistake():
    assert not [one for row in ROWS for one in found({}, {}, row.name)]


@pytest.mark.parametrize(
    "options, conf, says",
    [
        ({"ttl": 46}, SHORT, "above the broker's visibility timeout"),
        ({"max_hold": 60, "time_limit": 61}, {}, "above its max_hold"),
        ({"max_hold": 60}, {"task_soft_time_limit": 61}, "above its max_hold"),
    ],
)
def test_what_no_configuration_of_the_worker_can_mend_is_refused_when_the_app_is_finalized(
    options, conf, says
):
    with pytest.raises(ConfigError, match=says) as caught:
        app_with(options, conf).finalize()
    assert caught.value.hint


def test_the_configuration_of_lockkit_counts_too():
    limits = {"time_limit": 61}
    assert found(limits, {"lockkit_max_hold": 60}, "time-limit")
    assert found({}, {**SHORT, "lockkit_ttl": 46}, "ttl")
    assert not found({}, {**SHORT, "lockkit_ttl": 45}, "ttl")


def test_a_task_without_a_lock_is_not_looked_at():
    app = Celery("proj", set_as_current=False)

    @app.task(name="plain", shared=False, time_limit=7200, acks_late=True)
    def plain(): ...

    app.finalize()
    assert not list(locked_tasks(app))


def test_the_tasks_of_the_page_on_celery_make_no_mistake(monkeypatch):
    pytest.importorskip("redis")
    monkeypatch.chdir(Path(__file__).parents[3] / "docs/examples/celery")
    for name in ("BROKER_URL", "LOCKKIT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "tasks", raising=False)

    found = examine("tasks").findings
    del sys.modules["tasks"]

    assert [one.message for one in found if one.severity != "ok"] == []
    assert "4 tasks take locks" in found[0].message


@pytest.mark.parametrize(
    "options, conf, says",
    [
        ({"lock": None, "pool": "zzz"}, {}, "the configuration has no pool 'zzz'"),
        ({"min_hold": 100}, {"lockkit_max_hold": 50}, "max_hold (50 s) must not be below min_hold (100 s)"),
        ({"max_hold": 50}, {"lockkit_min_hold": 100}, "max_hold (50 s) must not be below min_hold (100 s)"),
        ({}, {"lockkit_url": "redsi://box"}, "redsi"),
        ({}, {"lockkit_tll": 7}, "did you mean lockkit_ttl?"),
        ({"on_busy": "wait"}, {"worker_pool": "solo"}, 'set on_busy="retry"'),
        ({}, MEMORY, "each of its processes then locks for itself"),
        ({}, {**MEMORY, "worker_pool": "processes"}, "each of its processes then locks for itself"),
        (
            {},
            {**MEMORY, "worker_pool": OWN.format("Processes")},
            "each of its processes then locks for itself",
        ),
    ],
)
def test_a_worker_does_not_start_with_a_task_whose_lock_cannot_work(monkeypatch, options, conf, says):
    app = app_with(options, conf)
    pool = get_implementation(app.conf.worker_pool)
    worker = type("Worker", (), {"app": app, "pool_cls": pool})
    monkeypatch.setattr(worker_pool, "_kinds", [])
    with pytest.raises(SystemExit) as refused:
        worker_init.send(sender=worker)
    assert str(refused.value).startswith("lockkit: ")
    assert says in str(refused.value)


@pytest.mark.parametrize(
    "url, shared",
    [
        ("redis://box", True),
        ("redis://localhost:1;redis://box", True),
        (["amqp://localhost", "amqp://10.0.0.7"], True),
        ("sqs://", True),
        ("redis://[fd00::1]:6379", True),
        ("redis://[::1]:6379", False),
        ("redis://127.0.0.2", False),
        ("amqp://guest@localhost//", False),
        ("amqp://", False),
        ("redis+socket:///tmp/redis.sock", False),
        ("memory://", False),
        ("filesystem://", False),
        ("sqla+sqlite:///box.db", False),
    ],
)
def test_whether_other_hosts_reach_the_broker_is_read_from_its_url(url, shared):
    assert setup_of(app_with({}, {"broker_url": url})).shared_broker is shared
