"""Health: every check adds reasons, and the worst one is the verdict."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest

import lockkit
from lockkit.errors import BackendUnavailable
from lockkit.facts import Finding
from lockkit.server import make_app, watching
from lockkit.server.health import VERDICTS, worst
from lockkit.values.names import STANDING

from .conftest import Site


@pytest.mark.parametrize("many", [*itertools.product(VERDICTS, repeat=3)])
def test_no_verdict_makes_another_one_better(many):
    assert VERDICTS.index(worst(many)) == max(map(VERDICTS.index, many))


def test_nothing_checked_is_healthy():
    assert worst(()) == "healthy"


def test_a_store_in_use_is_healthy(site, client):
    with client.lock("x").acquire():
        answer = site.get("/health")

    assert answer.status == 200
    assert answer.json["status"] == "healthy"
    (store,) = answer.json["stores"]
    assert (store["reachable"], store["zombies"], store["old_holds"], store["reasons"]) == (True, 0, 0, [])
    assert store["counters"]["acquired"] == 1


def test_a_lock_that_lockkit_holds_for_as_long_as_it_runs_is_not_old(tmp_path, serving, token_file):
    with lockkit.connect(
        f"sqlite:{tmp_path}/x.db", state_dir=str(tmp_path / "state"), age_warning=0.001, age_soft=500
    ) as client:
        application = make_app([client], token_file=str(token_file))
        with client.lock(STANDING[0]).acquire(), client.lock(STANDING[1]).acquire():
            answer = Site(client, application, serving(application)).get("/health")

    assert answer.json["stores"][0]["reasons"] == []


def test_an_old_hold_is_a_warning(tmp_path, serving, token_file):
    with lockkit.connect(
        f"sqlite:{tmp_path}/x.db", state_dir=str(tmp_path / "state"), age_warning=0.001, age_soft=500
    ) as client:
        application = make_app([client], token_file=str(token_file))
        with client.lock("old").acquire() as lease:
            answer = Site(client, application, serving(application)).get("/health")

    assert (answer.status, answer.json["status"]) == (200, "warning")
    (reason,) = answer.json["stores"][0]["reasons"]
    assert (reason["check"], reason["name"], reason["claim_id"]) == ("old_holds", "old", lease.claim_id)


DIES = """
import os, sys, lockkit
lockkit.connect(sys.argv[1], state_dir=sys.argv[2]).lock("x", ttl=600).acquire()
os._exit(0)
"""


def test_a_hold_of_a_dead_owner_is_a_zombie(site, client, redis_or_skip):
    url, served = redis_or_skip
    subprocess.run([sys.executable, "-c", DIES, url, str(client.config.state_dir)], check=True)

    answer = served.get("/health")

    assert (answer.status, answer.json["status"]) == (503, "unhealthy")
    assert answer.json["stores"][0]["zombies"] == 1
    assert answer.json["stores"][0]["reasons"][0]["check"] == "zombies"


@pytest.fixture
def redis_or_skip(tmp_path, serving, token_file):
    """A server over a private Redis, because the embedded store removes the claims of the dead itself."""
    import shutil

    if shutil.which("redis-server") is None:
        pytest.skip("there is no redis-server")
    from support.servers.redis import RedisServer

    with RedisServer() as server, lockkit.connect(server.url(), state_dir=str(tmp_path / "state")) as client:
        application = make_app([client], token_file=str(token_file))
        yield server.url(), Site(client, application, serving(application))


def test_a_store_that_does_not_answer_is_unhealthy_and_not_ready(site, monkeypatch):
    def away(*_args):
        raise BackendUnavailable("the store is away", hint="start it")

    monkeypatch.setattr(watching, "look", away)
    monkeypatch.setattr(lockkit.Client, "inspect", away)

    answer = site.get("/health")
    ready = site.get("/readyz", token=None)

    assert (answer.status, answer.json["status"]) == (503, "unhealthy")
    (store,) = answer.json["stores"]
    assert store["reachable"] is False
    assert [(one["check"], one["message"], one["hint"]) for one in store["reasons"]] == [
        ("store", "the store is away", "start it")
    ]
    assert ready.status == 503
    assert site.get("/livez", token=None).status == 200
    assert site.get("/api/locks").status == 503


class Checking:
    """A plugin with a health check."""

    def __init__(self, severity):
        self.severity = severity

    def lockkit_health(self, client):
        return [Finding("mine", self.severity, "as told", "do it")]


Checking.lockkit_health = lockkit.hookimpl(Checking.lockkit_health)


@pytest.mark.parametrize(
    "severity, verdict", [("ok", "healthy"), ("warning", "warning"), ("error", "unhealthy")]
)
def test_a_plugin_adds_a_check(tmp_path, serving, token_file, severity, verdict):
    with lockkit.connect(
        f"sqlite:{tmp_path}/x.db", state_dir=str(tmp_path / "state"), plugins=[Checking(severity)]
    ) as client:
        application = make_app([client], token_file=str(token_file))
        answer = Site(client, application, serving(application)).get("/health")

    assert answer.json["status"] == verdict


def test_metrics_are_those_of_the_exporter(site, client):
    with client.lock("x").acquire():
        answer = site.get("/metrics")

    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "lockkit_store_up" in answer.text
