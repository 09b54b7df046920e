"""Two real beats on a real broker: the messages when one is killed, stopped or ended, or the broker goes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

import lockkit
from support.servers.etcd import EtcdServer
from support.servers.redis import RedisServer
from support.servers.started import started

APP = """
import os
from celery import Celery
app = Celery("proj", broker=os.environ["BROKER"])
app.conf.update(
    beat_schedule={"tick": {"task": "proj.tick", "schedule": 0.3}},
    beat_max_loop_interval=0.2,
    broker_connection_retry_on_startup=True,
    lockkit_beat_ttl=float(os.environ["TTL"]),
    result_expires=None,
)
"""
LOCK = "celery-beat:proj"
SCHEDULER = "lockkit.integrations.celery.beat:LockedScheduler"
PATIENCE = 40
"""Seconds for what a busy machine does in one or two."""


def until(what, condition):
    end = time.monotonic() + PATIENCE
    while not (answer := condition()):
        assert time.monotonic() < end, what
        time.sleep(0.02)
    return answer


redis = started(RedisServer)


etcd = started(EtcdServer)


class Beats:
    """The beats of a test."""

    def __init__(self, broker, url, folder):
        self.broker, self.url, self.folder = broker, url, folder
        self.running = []
        self.environ = {k: v for k, v in os.environ.items() if not k.startswith("LOCKKIT_")}
        self.environ |= {
            "BROKER": broker.url(db=3),
            "HOME": str(folder),
            "LOCKKIT_CONFIG": "/dev/null",
            "LOCKKIT_NAMESPACE": folder.name.replace("_", "-"),
            "LOCKKIT_STATE_DIR": str(folder / "state"),
            "LOCKKIT_URL": url,
            "TTL": "5",
        }
        (folder / "state").mkdir(mode=0o700)
        (folder / "proj.py").write_text(APP)

    def start(self, *before, scheduler=SCHEDULER):
        number = len(self.running)
        words = ["-A", "proj", "beat", "-l", "INFO", "-s", str(self.folder / f"schedule-{number}")]
        if scheduler:
            words += ["--scheduler", scheduler]
        with (self.folder / f"log-{number}").open("w") as log:
            beat = subprocess.Popen(
                [*before, sys.executable, "-m", "celery", *words],
                cwd=self.folder,
                env=self.environ,
                stdout=log,
                stderr=log,
            )
        self.running.append(beat)
        return beat

    def start_two(self):
        """Start two at the same time. Returns the one that sends, and the one that stands by."""
        two = self.start(), self.start()
        until("none stands by", lambda: any("beat stands by" in self.log(each) for each in two))
        one, other = sorted(two, key=lambda each: "beat stands by" in self.log(each))
        self.sends(one)
        assert self.sent().count(other.pid) == 0
        return one, other

    def log(self, beat):
        return (self.folder / f"log-{self.running.index(beat)}").read_text()

    def sent(self):
        """The pids of the processes that have sent a message, in order."""
        messages = self.broker.cli("LRANGE", "celery", 0, -1, db=3)
        origins = [json.loads(each)["headers"]["origin"] for each in reversed(messages)]
        return [int(each.partition("@")[0].removeprefix("gen")) for each in origins]

    def sends(self, beat, more=1):
        """Wait until a beat has sent so many messages more."""
        had = self.sent().count(beat.pid)
        until(self.log(beat), lambda: self.sent().count(beat.pid) >= had + more)

    def stands_by(self, beat):
        until(self.log(beat), lambda: "beat stands by" in self.log(beat))

    def runs_on_record(self):
        with lockkit.connect(self.url, namespace=self.environ["LOCKKIT_NAMESPACE"]) as client:
            return client.record(f"{LOCK}/tick").version - 1  # the first version is that of its first start

    def end(self):
        for beat in self.running:
            beat.kill()
            beat.wait()


@pytest.fixture
def make(tmp_path):
    made = []

    def make(broker, url):
        broker.cli("DEL", "celery", db=3)
        beats = Beats(broker, url, tmp_path)
        made.append(beats)
        return beats

    yield make
    for beats in made:
        beats.end()


def no_turn_comes_back(pids):
    """Whether each beat has sent its messages in one go."""
    turns = [pid for at, pid in enumerate(pids) if at == 0 or pids[at - 1] != pid]
    return len(turns) == len(set(turns))


@pytest.mark.parametrize("store", ["redis", "sqlite", "etcd"])
def test_another_beat_takes_over_from_one_that_is_killed(store, make, redis, tmp_path, request):
    url = {"redis": lambda: redis.url(db=4), "sqlite": lambda: f"sqlite:{tmp_path}/locks.db"}
    beats = make(redis, url[store]() if store in url else request.getfixturevalue("etcd").url())
    one, other = beats.start_two()

    one.kill()
    one.wait()
    beats.sends(other, 2)
    other.kill()
    other.wait()

    sent = beats.sent()
    assert no_turn_comes_back(sent)
    # Each of the two may have been killed between the record and the message.
    assert beats.runs_on_record() - len(sent) in (0, 1, 2)


def test_a_beat_that_was_stopped_for_longer_than_the_ttl_sends_nothing_when_it_wakes_up(make, redis):
    beats = make(redis, redis.url(db=4))
    one, other = beats.start_two()
    one.send_signal(signal.SIGSTOP)
    beats.sends(other)

    one.send_signal(signal.SIGCONT)
    beats.stands_by(one)
    beats.sends(other, 2)

    sent = beats.sent()
    assert no_turn_comes_back(sent)
    assert len(sent) <= beats.runs_on_record()


def test_a_beat_that_ends_hands_over_at_once(make, redis):
    beats = make(redis, redis.url(db=4))
    beats.environ["TTL"] = "600"  # another one could not wait for it
    one, other = beats.start_two()

    one.send_signal(signal.SIGTERM)
    beats.sends(other)

    assert one.wait(PATIENCE) == 0
    assert no_turn_comes_back(beats.sent())


def test_a_beat_that_stands_by_ends_at_once_and_leaves_the_queue(make, redis):
    beats = make(redis, redis.url(db=4))
    beats.environ["TTL"] = "600"
    one, other = beats.start_two()

    other.send_signal(signal.SIGTERM)

    assert other.wait(PATIENCE) == 0, beats.log(other)
    assert "Traceback" not in beats.log(other)
    with lockkit.connect(beats.url, namespace=beats.environ["LOCKKIT_NAMESPACE"]) as client:
        until(beats.log(other), lambda: not client.inspect(LOCK).waiters)
    beats.sends(one)


def test_a_beat_whose_broker_is_away_goes_on_sending_when_it_is_back(make, tmp_path):
    with RedisServer(save="3600 1") as broker:
        beats = make(broker, f"sqlite:{tmp_path}/locks.db")
        one, _ = beats.start_two()
        broker.stop()
        until(
            beats.log(one), lambda: "Message Error" in beats.log(one) or "Connection error" in beats.log(one)
        )
        broker.start()

        beats.sends(one, 2)

        sent = beats.sent()
        assert set(sent) == {one.pid}
        assert len(sent) <= beats.runs_on_record()


def test_while_the_store_is_away_nothing_is_sent(make, redis):
    with RedisServer(save="3600 1") as store:
        beats = make(redis, store.url())
        one, other = beats.start_two()
        store.stop()
        until("not said", lambda: "the store is away" in beats.log(one) + beats.log(other))
        before = beats.sent()
        time.sleep(1)  # three runs would have been due
        assert beats.sent() == before
        store.start()

        until("nothing is sent again", lambda: len(beats.sent()) >= len(before) + 2)

        assert no_turn_comes_back(beats.sent()[len(before) :])
        assert len(beats.sent()) <= beats.runs_on_record()


DJANGO = {
    "conf": """
SECRET_KEY, USE_TZ = "x", True
INSTALLED_APPS = ["django_celery_beat"]
DATABASES = {"default": {
    "ENGINE": "django.db.backends.sqlite3",
    "NAME": "db.sqlite",
    "OPTIONS": {"init_command": "PRAGMA synchronous = OFF"},  # for 40 migrations, each a commit
}}
CELERY_LOCKKIT_BEAT_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"
CELERY_LOCKKIT_BEAT_TTL = 5
""",
    "proj": """
import os
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "conf")
import django
django.setup()
from celery import Celery
app = Celery("proj")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.broker_url = os.environ["BROKER"]
""",
    "filled": """
import proj
from django.core.management import call_command
from django_celery_beat.models import IntervalSchedule, PeriodicTask
call_command("migrate", verbosity=0)
every = IntervalSchedule.objects.create(every=1, period="seconds")
PeriodicTask.objects.create(name="tick", task="proj.tick", interval=every)
""",
}


def test_the_schedule_may_be_that_of_django_celery_beat(make, redis):
    pytest.importorskip("django_celery_beat")
    beats = make(redis, redis.url(db=4))
    for name, text in DJANGO.items():
        (beats.folder / f"{name}.py").write_text(text)
    subprocess.run([sys.executable, "filled.py"], cwd=beats.folder, env=beats.environ, check=True, timeout=60)
    one, other = beats.start_two()

    one.kill()
    beats.sends(other, 2)

    assert no_turn_comes_back(beats.sent())
    assert len(beats.sent()) <= beats.runs_on_record() + 1


def test_lockkit_run_makes_a_singleton_of_an_ordinary_beat(make, redis, tmp_path):
    """As docs/howto/celery-beat.md has it."""
    beats = make(redis, f"sqlite:{tmp_path}/locks.db")
    run = (sys.executable, "-m", "lockkit", "run", "beat", "--ttl", "2s", "--")
    one = beats.start(*run, scheduler=None)
    until(beats.log(one), beats.sent)
    first = beats.sent()[0]
    beats.start(*run, scheduler=None)
    with lockkit.connect(beats.url, namespace=beats.environ["LOCKKIT_NAMESPACE"]) as client:
        until("no waiter", lambda: client.inspect("beat").waiters)

    one.kill()
    one.wait()
    until("no take-over", lambda: beats.sent()[-1] != first)

    assert no_turn_comes_back(beats.sent())
