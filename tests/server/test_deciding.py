"""Alerts and the past over HTTP: the command line's documents, and decisions recorded with their makers."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import lockkit
from lockkit.alerts.inbox import Inbox
from lockkit.alerts.running import Runner
from lockkit.facts import Alert
from lockkit.server import make_app, past

from .conftest import Site
from .test_acts import records


@pytest.fixture
def alert(site, client):
    """An alert that fires; gives its fingerprint."""
    inbox = Inbox()
    inbox.lockkit_alert(Alert("lost", "P1", "a is lost", "a", "c0ffee"))
    runner = Runner(client, inbox, [])
    runner.step()
    (found,) = runner.desk.alerts()
    yield found.alert.fingerprint
    runner._resign()


def test_an_alert_is_shown_acknowledged_and_silenced_by_name(site, client, alert):
    (before,) = site.get("/api/alerts", token="view").json["alerts"]
    acked = site.post(f"/api/alerts/{alert}/ack", {"comment": "mine"}, token="operate")
    silenced = site.post(f"/api/alerts/{alert}/silence", {"seconds": 60, "comment": "known"}, token="operate")
    after = site.get("/api/alerts").json

    assert (before["fingerprint"], before["rule"], before["acknowledged_by"]) == (alert, "lost", None)
    assert (acked.status, acked.json["schema"]) == (200, "lockkit.alert-ack/1")
    assert acked.json["acknowledged_by"] == "operateer"
    assert (silenced.status, silenced.json["silence"]["author"]) == (200, "operateer")
    assert after["alerts"][0]["acknowledged_by"] == "operateer"
    assert after["alerts"][0]["silenced_by"] == [silenced.json["silence"]["id"]]
    assert after["silences"] == [silenced.json["silence"]]
    one, two = records(client)
    assert (one["action"], one["by"], one["alert"], one["comment"], one["outcome"]) == (
        *("acknowledge", "operateer", alert, "mine", "acknowledged"),
    )
    assert (two["action"], two["by"], two["seconds"]) == ("silence", "operateer", 60)


def test_an_acknowledgement_is_taken_back_and_a_silence_ended(site, client, alert):
    site.post(f"/api/alerts/{alert}/ack", {"comment": "mine"}, token="operate")
    silence = site.post(f"/api/alerts/{alert}/silence", {"seconds": 60}, token="operate").json["silence"]
    assert site.post(f"/api/silences/{silence['id']}/end", token="view").status == 403

    back = site.post(f"/api/alerts/{alert}/ack", {"undo": True}, token="operate")
    ended = site.post(f"/api/silences/{silence['id']}/end", token="operate")
    after = site.get("/api/alerts").json

    assert (back.status, back.json["acknowledged_by"]) == (200, None)
    assert (ended.status, ended.json["silence"], ended.json["ended"]) == (200, silence, True)
    assert (after["alerts"][0]["acknowledged_by"], after["silences"]) == (None, [])
    assert [(one["action"], one["outcome"]) for one in records(client)[2:]] == [
        ("take_back", "taken back"),
        ("end_silence", "ended"),
    ]
    again = site.post(f"/api/alerts/{alert}/ack", {"undo": True}, token="operate")
    assert (again.status, again.json["error"]) == (404, "no_such_acknowledgement")
    again = site.post(f"/api/silences/{silence['id']}/end", token="operate")
    assert (again.status, again.json["error"]) == (404, "no_such_silence")


def test_an_alert_that_is_not_there_is_neither_acknowledged_nor_silenced(site, client, alert):
    acked = site.post("/api/alerts/000000000000/ack")
    silenced = site.post("/api/alerts/000000000000/silence", {"seconds": 60})

    assert [(one.status, one.json["error"]) for one in (acked, silenced)] == [(404, "no_such_alert")] * 2
    assert site.get("/api/alerts").json["silences"] == []
    assert records(client) == []


def test_without_a_record_no_decision_is_made(site, client, alert):
    (client.config.state_place().path / "serve.jsonl").mkdir()

    assert site.post(f"/api/alerts/{alert}/ack").status == 507
    assert site.get("/api/alerts").json["alerts"][0]["acknowledged_by"] is None


def test_a_page_of_another_site_decides_nothing(site, alert):
    answer = site.post(f"/api/alerts/{alert}/ack", origin="https://evil.example")

    assert answer.status == 403
    assert site.get("/api/alerts").json["alerts"][0]["acknowledged_by"] is None


def test_alerts_that_cannot_be_read_are_an_error_of_the_server(site, client, alert):
    from lockkit.alerts.desk import folder_of

    (folder_of(client.config) / "state.json").write_text("{")

    answer = site.get("/api/alerts")
    assert (answer.status, answer.json["error"]) == (503, "no_alerts")


@pytest.fixture
def journaled(tmp_path, serving, token_file):
    """A server whose store has a past of three holds, beside another store in the same journal."""
    state = str(tmp_path / "state")
    with (
        lockkit.connect(f"sqlite:{tmp_path}/./x.db", state_dir=state, journal=True) as client,
        lockkit.connect(f"sqlite:{tmp_path}/y.db", state_dir=state, journal=True) as other,
    ):
        for name in ("a", "b", "a"):
            client.lock(name).acquire().release()
        other.lock("secret").acquire().release()
        client.driver().dispatcher.flush(10.0)
        other.driver().dispatcher.flush(10.0)
        application = make_app([client], token_file=str(token_file))
        yield Site(client, application, serving(application)), client


def test_the_past_comes_in_pages_of_one_store(journaled):
    site, _ = journaled
    whole = site.get("/api/history", token="view").json
    newest = site.get("/api/history?limit=1").json["holds"]
    before = site.get("/api/history?limit=1&offset=1").json["holds"]

    assert whole["schema"] == "lockkit.history/1"
    assert [hold["name"] for hold in whole["holds"]] == ["a", "b", "a"]
    assert (newest, before) == (whole["holds"][2:], whole["holds"][1:2])
    assert [hold["name"] for hold in site.get("/api/history?name=b").json["holds"]] == ["b"]
    one = whole["holds"][1]
    words = f"{one['claim_id'].upper()}%20%20{one['owner']['user']}%20released"
    assert site.get(f"/api/history?search={words}").json["holds"] == [one]
    assert site.get(f"/api/history?search={words}%20nobody").json["holds"] == []
    assert site.get("/api/history?search=RELEASED&limit=2").json["holds"] == whole["holds"][1:]
    assert site.get(f"/api/history?since={whole['holds'][2]['ended_seconds'] + 1}").json["holds"] == []


def test_the_past_is_that_of_the_command(journaled):
    site, client = journaled
    done = subprocess.run(
        [sys.executable, "-m", "lockkit", "history", "a", "--json"],
        capture_output=True,
        text=True,
        check=True,
        env={"LOCKKIT_STATE_DIR": client.config.state_dir, "PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
    )

    assert json.loads(done.stdout) == site.get("/api/history?name=a").json


def test_journals_that_are_too_large_are_not_read(journaled, monkeypatch):
    site, _ = journaled
    monkeypatch.setattr(past, "_LARGEST", 100)

    answer = site.get("/api/history")
    assert (answer.status, answer.json["error"]) == (501, "too_large")


def test_without_a_journal_there_is_no_past(site):
    answer = site.get("/api/history")
    assert (answer.status, answer.json["holds"], answer.json["files"]) == (200, [], [])
    assert "there is no event journal" in answer.json["reason"]
