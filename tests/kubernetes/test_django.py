"""docs/howto/django.md: a Django project's commands by `manage.py`, as cron and Kubernetes start them."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

import lockkit
from lockkit.testing.processes import until
from support.holders import AT_ONCE

pytest.importorskip("django")

SHOP = Path(__file__).parents[2] / "docs/examples/django-shop"
PATIENCE = 40


@pytest.fixture
def manage(started):
    """Start a command of the project."""

    def start(*words, **options):
        env = {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(SHOP), os.environ.get("PYTHONPATH")])),
            "PYTHONUNBUFFERED": "1",  # the tests read what a command says while it runs
        }
        return started(
            sys.executable, str(SHOP / "manage.py"), *words, env=env | options.pop("env", {}), **options
        )

    return start


@pytest.fixture
def client(url):
    """A client of the namespace that the project's settings name. Keywords in code win over the URL."""
    with lockkit.connect(url, namespace="shop") as client:
        yield client


@pytest.fixture(autouse=True)
def _empty(server):
    server.cli("FLUSHDB")


def said(process, code=0):
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, err
    return out, err


def test_of_two_schedulers_one_runs_a_job_of_10_ms_and_the_other_skips_it(manage, client):
    jobs = [manage("nightly") for _ in range(2)]

    told = sorted(said(job) for job in jobs)

    assert told[1] == (f"began eu with fence {client.inspect('nightly:eu').claims[0].fence}\ndone\n", "")
    assert told[0][0] == ""
    assert told[0][1].startswith("skipped: ")
    assert "'nightly:eu'" in told[0][1]
    assert client.inspect("nightly:eu").holders[0].state == "LINGERING"


def test_another_region_is_another_lock(manage):
    assert [said(manage("nightly", "--region", region))[0].splitlines()[-1] for region in ("eu", "us")] == [
        "done",
        "done",
    ]


def test_sigterm_ends_the_command_and_releases(manage, client):
    job = manage("lockkit_run", "job", "--ttl", "60s", "--", "nightly", "--seconds", "60")
    assert job.stdout.readline().startswith("began eu")

    job.send_signal(signal.SIGTERM)

    client.lock("job").acquire(timeout=AT_ONCE).release()
    assert job.wait(PATIENCE) == 128 + signal.SIGTERM
    assert [one.state for one in client.inspect("nightly:eu").claims] == ["LINGERING"]  # its min_hold


def test_a_killed_command_frees_its_lock_after_the_ttl(manage, client):
    job = manage("lockkit_run", "job", "--ttl", "2s", "--", "nightly", "--seconds", "60")
    assert job.stdout.readline().startswith("began eu")

    job.kill()

    client.lock("job").acquire(timeout=2 + 1 + AT_ONCE).release()


def test_any_command_runs_under_a_lock_and_its_exit_code_counts(manage, client):
    assert said(manage("lockkit_run", "job", "--", "nightly"))[0].endswith("done\n")
    assert client.inspect("job").claims == ()
    unknown = said(manage("lockkit_run", "job", "--", "nightlyy"), 1)[1]
    assert "Unknown command: 'nightlyy'" in unknown
    assert client.inspect("job").claims == ()


def test_a_busy_lock_is_told_with_the_exit_code_of_run(manage, client):
    with client.lock("job").acquire():
        assert "held by" in said(manage("lockkit_run", "job", "--no-wait", "--", "check"), 75)[1]
        said(manage("lockkit_run", "job", "--timeout", "50ms", "--", "check"), 124)
        assert said(manage("lockkit_run", "job", "--no-wait", "--skip", "--", "check"))[1].startswith(
            "skipped: "
        )


def test_it_waits_for_as_long_as_it_takes_otherwise(manage, client):
    with client.lock("job").acquire():
        job = manage("lockkit_run", "job", "--", "check")
        until(lambda: client.inspect("job").waiters, seconds=PATIENCE)
    said(job)


@pytest.mark.parametrize(
    "words, code, told",
    [
        (("lockkit_run", "job"), 64, "the command is missing"),
        (("lockkit_run", "job", "--ttl", "soon", "--", "check"), 64, "ttl"),
        (("lockkit_run", "", "--", "check"), 78, "name"),
    ],
)
def test_a_command_line_that_cannot_be_meant_is_refused(manage, words, code, told):
    assert told in said(manage(*words), code)[1]


def test_a_store_that_is_down_is_no_reason_to_run(manage):
    down = manage("nightly", env={"LOCKKIT_URL": "redis://127.0.0.1:9"})

    out, _ = said(down, 69)

    assert out == ""


def test_a_lock_that_was_lost_fails_the_command(manage, client):
    job = manage("lockkit_run", "job", "--", "nightly", "--seconds", "5")
    assert job.stdout.readline().startswith("began eu")
    (holder,) = client.inspect("job").holders
    client.evict("job", holder.claim_id, reason="a test", now=True)

    assert "job" in said(job, 76)[1]


BUSY_OF_ITS_OWN = """
import django, os
os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
django.setup()
import lockkit
from django.core.management import call_command
from lockkit.integrations.django import LockedCommand, client

class Own(LockedCommand):
    def handle(self, *args, **options):
        client().lock("other").acquire(timeout=0)

class Wrong(Own):
    lock = "report:{district}"

held = client().lock("other").acquire()
for command in (Own(), Wrong()):
    try:
        call_command(command)
    except Exception as error:
        print(type(error).__name__, getattr(error, "returncode", None), error)
print(client().names())
"""


def test_an_error_of_the_command_itself_is_left_to_it_and_a_wrong_template_is_told(started):
    env = {"PYTHONPATH": os.pathsep.join(filter(None, [str(SHOP), os.environ.get("PYTHONPATH")]))}

    own, wrong, names = said(started(sys.executable, "-c", BUSY_OF_ITS_OWN, env=env))[0].splitlines()

    assert own.startswith("AcquireTimeout None ")
    assert wrong == "CommandError 78 'report:{district}' names 'district', which is no option of the command"
    assert "__main__" not in names


VIEW = """
import django, os
os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
django.setup()
from django.test import Client
from lockkit.integrations.django import client
print(Client(SERVER_NAME="localhost").get("/charge/ann").content.decode())
print(client().inspect("account:ann").claims)
"""


def test_a_view_holds_a_lock(started):
    env = {"PYTHONPATH": os.pathsep.join(filter(None, [str(SHOP), os.environ.get("PYTHONPATH")]))}

    told, left = said(started(sys.executable, "-c", VIEW, env=env))[0].splitlines()

    assert told.startswith("charged ann with fence ")
    assert left == "()"
