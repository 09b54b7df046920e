"""The beat scheduler that holds a lock: which tasks it sends, leaves to another one, and takes over."""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from celery import Celery
from celery.beat import PersistentScheduler
from celery.schedules import crontab, schedule
from celery.signals import before_task_publish

import lockkit
from lockkit.integrations.celery.beat import LockedScheduler
from lockkit.integrations.celery.beat_runs import Overtaken, Runs


class Eager(PersistentScheduler):
    """A scheduler of a project's own."""


class KeepsToItself(PersistentScheduler):
    """A scheduler that advances an entry without a change of its schedule, as that of django-celery-beat."""

    def reserve(self, entry):
        return next(entry)


class Clock:
    """A clock for schedules, which the test moves."""

    def __call__(self):
        return self.now

    def __reduce__(self):
        return "CLOCK"  # Celery pickles it with the schedule


CLOCK = Clock()


@pytest.fixture
def clock():
    CLOCK.now = datetime(2030, 1, 1, 11, 59, 30, tzinfo=UTC)
    return CLOCK


@pytest.fixture
def namespace(monkeypatch, request, tmp_path):
    for name in ("LOCKKIT_PROFILE", "LOCKKIT_TTL", "LOCKKIT_SCOPE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LOCKKIT_CONFIG", "/dev/null")
    monkeypatch.setenv("LOCKKIT_URL", "memory:")
    monkeypatch.setenv("LOCKKIT_NAMESPACE", f"beat-{abs(hash(request.node.name))}")
    monkeypatch.chdir(tmp_path)
    with lockkit.connect() as client:  # the memory store lasts as long as somebody has it open
        client.names()
        yield


@pytest.fixture
def app(namespace):
    app = Celery("proj", broker="memory://", set_as_current=False)
    app.conf.update(
        beat_max_loop_interval=0.05,
        result_expires=None,
        timezone="UTC",
        task_default_queue=f"queue-{id(app)}",
    )
    app.conf.beat_scheduler = "lockkit.integrations.celery.beat:LockedScheduler"
    yield app
    app.close()


@pytest.fixture
def beat(app, tmp_path):
    """Schedulers as two beats on two hosts have them: one lock, and a file each."""
    made = []

    def make(name="a"):
        scheduler = LockedScheduler(app, schedule_filename=str(tmp_path / name))
        made.append(scheduler)
        return scheduler

    yield make
    for scheduler in made:
        scheduler.close()


@pytest.fixture
def sent(app):
    """The tasks whose messages have reached the broker since the last call."""

    def drain():
        with (
            app.connection_for_read() as connection,
            connection.SimpleQueue(app.conf.task_default_queue) as queue,
        ):
            tasks = []
            with suppress(queue.Empty):
                while True:
                    message = queue.get_nowait()
                    message.ack()
                    tasks.append(message.headers["task"])
            return tasks

    return drain


def lease_of(scheduler):
    return scheduler._lease


def test_beat_takes_it_by_its_path(app):
    scheduler = (
        app.Beat(quiet=True).Service(app, scheduler_cls=app.conf.beat_scheduler).get_scheduler(lazy=True)
    )

    assert type(scheduler) is LockedScheduler
    assert "celery-beat:proj" in scheduler.info
    assert "celery.beat.PersistentScheduler" in scheduler.info


def test_only_the_holder_sends(app, beat, sent, clock):
    app.conf.beat_schedule = {"bill": {"task": "proj.bill", "schedule": schedule(60, nowfun=clock, app=app)}}
    one, other = beat("a"), beat("b")
    for each in (one, other):
        each.tick()
    clock.now += timedelta(seconds=61)
    for _ in range(3):
        other.tick()
    assert sent() == []

    for _ in range(3):
        one.tick()

    assert sent() == ["proj.bill"]


def test_a_beat_that_stands_by_opens_no_file_of_the_schedule(app, beat, tmp_path):
    """Two on one file: Celery removes a file that it cannot open, because another one has it."""
    beat("same").tick()
    before = {path.name for path in tmp_path.iterdir()}
    standby = beat("same")
    standby.tick()

    assert standby._term is None
    assert {path.name for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("decides", [Eager, KeepsToItself])
def test_another_beat_goes_on_from_the_last_run_on_record_and_not_from_its_own_file(
    app, beat, sent, clock, decides
):
    app.conf.lockkit_beat_scheduler = decides
    app.conf.beat_schedule = {"bill": {"task": "proj.bill", "schedule": schedule(60, nowfun=clock, app=app)}}
    one, other = beat("a"), beat("b")
    one.tick()
    clock.now += timedelta(seconds=61)
    for _ in range(3):
        one.tick()
    clock.now += timedelta(seconds=61)
    for _ in range(3):
        one.tick()
    first = sent()
    one.close()
    clock.now += timedelta(seconds=30)
    for _ in range(3):
        other.tick()
    assert (first, sent()) == (["proj.bill", "proj.bill"], [])

    clock.now += timedelta(seconds=31)
    for _ in range(3):
        other.tick()

    assert sent() == ["proj.bill"]


def test_what_was_due_while_nobody_held_is_sent_once_by_the_next_holder(app, beat, sent, clock):
    app.conf.beat_schedule = {
        "nightly": {"task": "proj.nightly", "schedule": crontab(0, 12, nowfun=clock, app=app)}
    }
    one, other = beat("a"), beat("b")
    one.tick()
    one.close()
    clock.now += timedelta(seconds=60)

    for _ in range(3):
        other.tick()

    assert sent() == ["proj.nightly"]


def test_a_holder_that_was_replaced_sends_nothing_any_more(app, beat, sent, clock):
    app.conf.beat_schedule = {"bill": {"task": "proj.bill", "schedule": schedule(60, nowfun=clock, app=app)}}
    app.conf.lockkit_beat_ttl = 1
    one, other = beat("a"), beat("b")
    one.tick()
    lease = lease_of(one)
    with lockkit.connect() as client:
        client.evict("celery-beat:proj", lease.claim_id, reason="test", now=True)
    assert lease.lost.wait(20)
    other.tick()
    one.tick()
    assert one._term is None  # although nothing was due
    clock.now += timedelta(seconds=61)
    for _ in range(3):
        one.tick()
    assert sent() == []

    other.tick()

    assert sent() == ["proj.bill"]


def test_a_message_is_not_handed_to_the_broker_if_the_lock_is_lost_on_the_way(app, beat, sent, clock, caplog):
    app.conf.beat_schedule = {"bill": {"task": "proj.bill", "schedule": schedule(60, nowfun=clock, app=app)}}
    one = beat()
    one.tick()
    clock.now += timedelta(seconds=61)

    def lose(**_):
        lease_of(one).simulate_loss()

    before_task_publish.connect(lose, weak=False)
    try:
        for _ in range(2):
            one.tick()
    finally:
        before_task_publish.disconnect(lose)

    assert sent() == []
    assert "LeaseLost" in caplog.text


def test_a_run_that_another_beat_has_on_record_is_not_sent_again(app, beat, sent, clock, caplog):
    """As a holder finds that was stopped between its last look at the lock and its record."""
    app.conf.beat_schedule = {"bill": {"task": "proj.bill", "schedule": schedule(60, nowfun=clock, app=app)}}
    one = beat()
    one.tick()
    clock.now += timedelta(seconds=61)
    with lockkit.connect() as client:
        record = client.record("celery-beat:proj/bill")
        client.put_record(record.name, {"last_run_at": clock.now.isoformat()}, record.version)

    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            one.tick()

    assert sent() == []
    assert "does not send 'bill'" in caplog.text


def test_an_entry_that_was_added_meanwhile_gets_its_record_with_its_first_run(app, beat, sent, clock):
    one = beat()
    one.tick()
    one._term.add(name="new", task="proj.new", schedule=schedule(60, nowfun=clock, app=app))
    clock.now += timedelta(seconds=61)

    for _ in range(3):
        one.tick()

    assert sent() == ["proj.new"]
    with lockkit.connect() as client:
        assert client.record("celery-beat:proj/new").version == 1


def test_a_time_on_record_comes_back_in_the_time_zone_of_the_schedule(app, beat, clock):
    app.conf.timezone = "Asia/Kathmandu"
    app.conf.beat_schedule = {"nightly": {"task": "proj.nightly", "schedule": crontab(0, 3)}}
    one, other = beat("a"), beat("b")
    one.tick()
    first = one._term.schedule["nightly"].last_run_at
    one.close()
    other.tick()

    again = other._term.schedule["nightly"].last_run_at
    assert (again, again.hour) == (first, first.hour)


def test_a_request_whose_answer_was_lost_counts_as_applied(app, beat, clock):
    app.conf.beat_schedule = {"bill": {"task": "proj.bill", "schedule": schedule(60, nowfun=clock, app=app)}}
    one = beat()
    one.tick()
    entry = one._term.schedule["bill"]
    runs = Runs(one._client, lease_of(one))
    runs.resume([entry])
    copy = Runs(one._client, lease_of(one))
    copy.resume([entry])

    runs.begin(entry, clock.now)
    copy.begin(entry, clock.now)
    copy.begin(entry, clock.now + timedelta(seconds=1))
    with pytest.raises(Overtaken):
        runs.begin(entry, clock.now + timedelta(seconds=2))


def test_another_scheduler_may_decide(app, beat, clock, sent):
    app.conf.lockkit_beat_scheduler = f"{__name__}:Eager"
    app.conf.lockkit_beat_lock = "our beat"
    app.conf.lockkit_beat_ttl = 7
    app.conf.beat_schedule = {"bill": {"task": "proj.bill", "schedule": 3600}}
    one = beat()
    one.tick()

    assert isinstance(one._term, PersistentScheduler)
    with lockkit.connect() as client:
        (holder,) = client.inspect("our beat").holders
    assert holder.ttl == 7


def test_a_store_that_is_away_is_said_once_and_nothing_is_sent(app, beat, monkeypatch, caplog):
    monkeypatch.setenv("LOCKKIT_URL", "redis://127.0.0.1:1/0")
    one = beat()

    pauses = [one.tick() for _ in range(2)]

    assert min(pauses) > 0
    assert len([record for record in caplog.records if "the store is away" in record.message]) == 1


def test_a_misspelt_setting_is_refused(app, beat):
    app.conf.lockkit_beat_tll = 5

    with pytest.raises(lockkit.ConfigError, match="lockkit_beat_tll"):
        beat()


def test_a_drained_namespace_is_said_once_and_nothing_is_sent(app, beat, caplog):
    with lockkit.connect() as client:
        client.drain(reason="a move")
    one = beat()

    pauses = [one.tick() for _ in range(2)]

    assert min(pauses) > 0
    assert len([record for record in caplog.records if "beat sends nothing" in record.message]) == 1
