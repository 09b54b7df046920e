"""Servers that clean up after dead owners; two on one store share the work, and survive each other."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys

import pytest

import lockkit
from lockkit.observe import journal
from lockkit.testing.processes import until
from lockkit.values.names import ALERTER, RECOVERER

pytestmark = pytest.mark.timeout(300)
DIES = """
import os, sys, lockkit
lease = lockkit.connect(sys.argv[1], state_dir=sys.argv[2]).lock(sys.argv[3], ttl=3600).acquire()
print(lease.claim_id, os.getpid(), flush=True)
os._exit(0)
"""
SETTINGS = """
age_hard = "100ms"
age_soft = "90ms"
age_warning = "80ms"
[serve]
recover = "100ms"
alerts = {alerts}
[alerts]
group_wait = "100ms"
group_interval = "100ms"
look_every = "100ms"
[alerts.rules.old_hold]
severity = "P0"
[alerts.channels.nobody]
type = "alertmanager"
url = "http://127.0.0.1:1"
"""


@pytest.fixture(params=[pytest.param("redis", marks=pytest.mark.full), "host"])
def url(request, tmp_path):
    """A store that keeps a dead owner's claim until it is removed, and one that users of a host share."""
    if request.param == "host":
        folder = tmp_path / "shared"
        folder.mkdir(mode=0o700)
        yield f"sqlite:{folder}/locks.db"
        return
    if shutil.which("redis-server") is None:
        pytest.skip("there is no redis-server")
    from support.servers.redis import RedisServer

    with RedisServer() as server:
        yield server.url()


@pytest.fixture
def client(url, tmp_path):
    with lockkit.connect(url, state_dir=str(tmp_path / "mine")) as client:
        yield client


@pytest.fixture
def server(begun, url, tmp_path):
    """Start ``lockkit serve`` with a state folder of its own; gives the process and that folder."""

    def start(name, *, alerts=False):
        file = tmp_path / "lockkit.toml"
        file.write_text(SETTINGS.format(alerts=str(alerts).lower()))
        state = tmp_path / name
        process, line = begun("--json", "--url", url, LOCKKIT_CONFIG=str(file), LOCKKIT_STATE_DIR=str(state))
        assert json.loads(line)["schema"] == "lockkit.serve/1"
        return process, state

    return start


def left_behind(url, tmp_path, name):
    """A claim whose owner is dead: its id, and the pid of the owner."""
    command = [sys.executable, "-c", DIES, url, str(tmp_path / "dead"), name]
    claim, pid = subprocess.run(command, check=True, text=True, capture_output=True).stdout.split()
    return claim, int(pid)


def actions(*states):
    """The actions of recoverers with these state folders, each with its outcome."""
    lines = [line for state in states for line in journal.read(state, file=journal.ACTIONS)]
    outcomes = {one["of"]: one["outcome"] for one in lines if "of" in one}
    return [{**one, "outcome": outcomes.get(one["id"])} for one in lines if "of" not in one]


def holder(client, name):
    """The pid of the process that holds a lock; None if nobody does."""
    held = client.inspect(name).holders
    return held[0].owner.pid if held else None


def test_what_a_dead_owner_left_is_removed_and_the_record_says_what_was_seen(url, client, server, tmp_path):
    claim, pid = left_behind(url, tmp_path, "job")
    if url.startswith("redis"):
        assert [one.claim_id for one in client.inspect("job").holders] == [claim]

    _, state = server("one")

    with client.lock("job").acquire(timeout=60):
        pass
    if url.startswith("redis"):  # the embedded store has removed it itself
        until(lambda: [one["outcome"] for one in actions(state)] == ["removed"], seconds=60)
        (record,) = actions(state)
        assert (record["action"], record["kind"], record["name"], record["claim"]) == (
            *("remove", "gone", "job", claim),
        )
        assert record["seen"]["owner"].count(str(pid)) == 1
        assert record["url"] == client.url


def test_of_two_servers_one_tells_and_when_it_is_killed_the_other_one_does(url, client, server):
    first, one = server("one", alerts=True)
    until(lambda: {holder(client, ALERTER), holder(client, RECOVERER)} == {first.pid}, seconds=60)
    second, other = server("other", alerts=True)

    def told(lock):
        return [
            (state.name, line["reason"])
            for state in (one, other)
            for line in journal.read(state, file="alerts.jsonl")
            if line["kind"] == "alert" and lock in json.dumps(line)
        ]

    with client.lock("before", max_hold=3600).acquire():
        until(lambda: told("before"), seconds=60)
        assert holder(client, ALERTER) == first.pid
        told_before = told("before")
    first.send_signal(signal.SIGKILL)
    first.wait()
    until(lambda: {holder(client, ALERTER), holder(client, RECOVERER)} == {second.pid}, seconds=120)
    with client.lock("after", max_hold=3600).acquire():
        until(lambda: told("after"), seconds=60)
        found = told("after")

    assert told_before == [("one", "first")]
    assert {name for name, _ in told("before")} == {"one"}
    assert found[0] == ("other", "first")
    assert {name for name, _ in found} == {"other"}


def test_of_two_servers_exactly_one_removes_a_claim(url, client, server, tmp_path):
    if not url.startswith("redis"):
        pytest.skip("this store removes the claims of the dead itself")
    states = [server(name)[1] for name in ("one", "other")]
    claims = [left_behind(url, tmp_path, f"job/{number}")[0] for number in range(6)]

    def removed():
        return sorted(one["claim"] for one in actions(*states) if one["outcome"] == "removed")

    until(lambda: len(removed()) >= len(claims), seconds=60)
    until(lambda: None not in [one["outcome"] for one in actions(*states)], seconds=60)
    assert removed() == sorted(claims)
