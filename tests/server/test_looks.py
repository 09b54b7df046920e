"""The server shows what the commands show."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from urllib.parse import quote

import pytest

import lockkit
from lockkit.server import make_app, stores
from lockkit.server.stores import ServerStore

from .conftest import Site


def commanded(client, *words):
    """The JSON that a command prints."""
    url = str(client.config.url)
    done = subprocess.run(
        [sys.executable, "-m", "lockkit", *words, "--json", "--url", url],
        capture_output=True,
        text=True,
        check=True,
        env={"LOCKKIT_STATE_DIR": client.config.state_dir, "PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
    )
    return json.loads(done.stdout)


def still(document):
    """A document without the parts that differ from look to look: times, even by a store's microseconds."""
    changing = ("deadline", "evidence", "read_at", "renewed", "since")

    def kept(value):
        if isinstance(value, list):
            return [kept(one) for one in value]
        if isinstance(value, dict):
            return {key: kept(one) for key, one in value.items() if not key.startswith(changing)}
        return value

    return {**kept(document), "store": {**document["store"], "source": ""}}


def test_locks_are_the_document_of_status(site, client):
    with client.lock("busy").acquire(reason="nightly"), client.lock("a/b <script>").acquire():
        served = site.get("/api/locks?sort=name").json
        printed = commanded(client, "status")

    assert [lock["name"] for lock in served["locks"]] == ["a/b <script>", "busy"]
    assert still(served) == still(printed)


def test_a_page_of_locks_is_chosen_on_the_server(site, client):
    leases = [client.lock(f"team/{number:02}").acquire() for number in range(12)]
    leases.append(client.lock("other").acquire())

    page = site.get("/api/locks?pattern=team/*&sort=name&offset=10&limit=5").json

    assert [lock["name"] for lock in page["locks"]] == ["team/10", "team/11"]
    assert page["summary"]["locks"] == 12
    for lease in leases:
        lease.release()


def test_locks_of_pools_and_of_lockkit_itself_come_last_if_they_are_to_be_apart(site, client):
    with client.lock("@alerts").acquire(), client.lock("z").acquire(), client.lock("a").acquire():
        together = site.get("/api/locks?sort=name").json["locks"]
        apart = site.get("/api/locks?sort=name&apart=true").json["locks"]

    assert [lock["name"] for lock in together] == ["@alerts", "a", "z"]
    assert [lock["name"] for lock in apart] == ["a", "z", "@alerts"]


def test_a_long_queue_is_told_in_pages(site, client):
    lease = client.lock("busy").acquire()
    others = [threading.Thread(target=waiting, args=(client,)) for _ in range(5)]
    for one in others:
        one.start()
    until(lambda: len(client.inspect("busy").waiters) == 5)

    page = site.get("/api/locks?waiters=2").json["locks"][0]
    rest = site.get("/api/lock?name=busy&offset=2&waiters=2").json["locks"][0]
    last = site.get("/api/lock?name=busy&offset=4").json["locks"][0]

    assert [len(one["waiters"]) for one in (page, rest, last)] == [2, 2, 1]
    assert page["waiting"] == rest["waiting"] == 5
    assert [one["position"] for one in page["waiters"] + rest["waiters"] + last["waiters"]] == [1, 2, 3, 4, 5]
    lease.release()
    for one in others:
        one.join(30)


def waiting(client):
    with client.lock("busy").acquire(timeout=60):
        pass


def until(done, seconds=30):
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_free_lock_is_shown_with_names_that_are_like_it(site, client):
    with client.lock("backup").acquire():
        found = site.get("/api/lock?name=backip").json

    assert found["locks"][0]["state"] == "free"
    assert found["near"] == ["backup"]


def test_a_name_with_the_characters_of_a_pattern_is_looked_up_as_it_is(site, client):
    with client.lock("a*").acquire(), client.lock("ab").acquire():
        found = site.get("/api/lock?name=a*").json

    assert [lock["name"] for lock in found["locks"]] == ["a*"]


def test_gpus_are_the_document_of_gpu_ls(tmp_path, serving, token_file):
    with lockkit.connect("memory:", gpu_simulate=2, state_dir=str(tmp_path / "state")) as client:
        application = make_app([client], token_file=str(token_file))
        served = Site(client, application, serving(application)).get("/api/gpus").json

    assert served["schema"] == "lockkit.gpu-ls/1"
    assert [gpu["index"] for gpu in served["gpus"]] == [0, 1]


def test_a_host_without_gpus_has_none(site):
    found = site.get("/api/gpus")

    assert found.status == 200
    assert found.json["gpus"] == []
    assert found.json["remarks"] != []


def test_several_stores_are_told_apart(tmp_path, serving, token_file):
    with (
        lockkit.connect(f"sqlite:{tmp_path}/a.db", state_dir=str(tmp_path / "state")) as one,
        lockkit.connect(f"sqlite:{tmp_path}/b.db", state_dir=str(tmp_path / "state")) as other,
        one.lock("x").acquire(),
        other.lock("y").acquire(),
    ):
        application = make_app([one, other], token_file=str(token_file))
        site = Site(one, application, serving(application))
        ids = [each["id"] for each in site.get("/api/stores").json["stores"]]

        names = [site.get(f"/api/locks?store={each}").json["locks"][0]["name"] for each in ids]
        missing = site.get("/api/locks")
        wrong = site.get("/api/locks?store=nowhere")

    assert names == ["x", "y"]
    assert (missing.status, missing.json["error"]) == (400, "store_missing")
    assert wrong.status == 404


def test_one_store_may_not_be_given_twice(client):
    with pytest.raises(lockkit.ConfigError, match="given twice"):
        make_app([client, client])


@pytest.mark.parametrize(
    "path",
    [
        "/api/locks?limit=0",
        "/api/locks?limit=1001",
        "/api/locks?limit=ten",
        "/api/locks?sort=size",
        "/api/locks?sort=age&sort=name",
        "/api/locks?lmit=5",
        "/api/locks?state=null",
        "/api/lock",
        "/api/lock?name=a%00b",
        "/api/lock?name=" + "x" * 513,
    ],
)
def test_a_parameter_that_is_not_allowed_is_an_error(site, path):
    answer = site.get(path)

    assert answer.status == 400
    assert answer.json["schema"] == "lockkit.problem/1"


def test_viewers_of_one_lock_share_a_look_and_a_change_makes_a_new_one(tmp_path, monkeypatch):
    with lockkit.connect(f"sqlite:{tmp_path}/locks.db") as client:
        store = ServerStore(client)
        monkeypatch.setattr(stores, "_LOCK", 3600.0)
        looked, real = [], client.inspect
        monkeypatch.setattr(client, "inspect", lambda name: looked.append(name) or real(name))
        for name in ("a", "a", "b", "a"):
            found, at = store.lock(name)
            assert [info.name for info in found.locks] == [name]
            assert at <= time.time()
        assert looked == ["a", "b"]

        with client.lock("a"):
            store.forget()
            assert len(store.lock("a")[0].locks[0].holders) == 1
        assert looked == ["a", "b", "a"]

        for number in range(200):
            store.lock(f"n{number}")
        assert len(store._locks) == 64


def test_a_long_name_and_a_row_that_is_no_name_break_nothing(site, client):
    long, wide = "n" * 480, "é" * 240
    lost = client.lock("evil").acquire()
    with closing(sqlite3.connect(client.config.url.removeprefix("sqlite:"))) as database, database:
        assert database.execute("UPDATE entries SET name = ? WHERE name = 'evil'", ("ev\0il",)).rowcount
    with client.lock(long).acquire(), client.lock(wide).acquire():
        assert [one["name"] for one in site.get("/api/locks?sort=name").json["locks"]] == [long, wide]
        assert [one["name"] for one in commanded(client, "status")["locks"]] == [long, wide]
        for name in (long, wide):
            assert len(site.get(f"/api/lock?name={quote(name)}").json["locks"]) == 1
        assert site.get("/api/lock?name=ev%00il").status == 400
        assert (site.get("/metrics").status, site.get("/health").status) == (200, 200)
    assert lost.release().outcome == "LOST"
