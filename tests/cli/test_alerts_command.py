"""``lockkit alerts``: what people see of alerts, and what they decide about them."""

from __future__ import annotations

import http.server
import json
import signal
import threading

import jsonschema
import pytest

from lockkit.alerts.desk import Desk, folder_of, write
from lockkit.alerts.engine import Engine
from lockkit.alerts.grouping import Timing
from lockkit.alerts.happenings import of_alert
from lockkit.alerts.notification import Notification
from lockkit.alerts.opening import FOLDER
from lockkit.alerts.shipped import SHIPPED
from lockkit.alerts.spool import Spool
from lockkit.cli.schemas import SCHEMAS
from lockkit.config import config as configuration
from lockkit.facts import Alert
from lockkit.lib.clock import SYSTEM
from support.receivers import Answer, receiver


@pytest.fixture
def desk(lockkit):
    """The desk of the commands, with an alert that fires."""
    desk = Desk(folder_of(configuration.load(environ=lockkit.env, cwd=lockkit.folder)))
    engine = Engine(SHIPPED, Timing(30.0, 300.0, 14_400.0, 60), now=SYSTEM.wall())
    engine.step(SYSTEM.wall(), [of_alert(Alert("lost", "P1", "gpu:0 is lost", "gpu:0"))])
    write(desk.folder / "state.json", engine.state)
    return desk


def document(lockkit, *line):
    made = lockkit.json("alerts", *line)
    schema = SCHEMAS[made["schema"].removeprefix("lockkit.").removesuffix("/1")]
    jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker()).validate(made)
    assert set(made) <= set(schema["properties"])
    return made


def test_the_rules_in_force_are_shown_with_the_changes_of_a_file(lockkit):
    (lockkit.folder / "lockkit.toml").write_text(
        "[alerts.rules.timeouts]\nabove = 0.3\n[alerts.rules.lost]\nenabled = false"
    )
    rules = {one["rule"]: one for one in document(lockkit, "rules")["rules"]}
    assert "lost" not in rules
    assert "more than 30%" in rules["timeouts"]["condition"]
    assert rules["store_unreachable"]["for_seconds"] == 60.0
    assert "timeouts" in lockkit("alerts", "rules").stdout


def test_a_wrong_rule_is_an_error_of_the_configuration(lockkit):
    (lockkit.folder / "lockkit.toml").write_text("[alerts.rules.timeouts]\nabovee = 1")
    done = lockkit("alerts", "rules")
    assert done.returncode == 78
    assert "[alerts.rules.timeouts] abovee: unknown key (did you mean above?" in done.stderr


def test_without_an_engine_there_are_no_alerts(lockkit):
    assert document(lockkit, "list") == {"schema": "lockkit.alerts/1", "alerts": [], "silences": []}
    assert "no alert engine has run here" in lockkit("alerts", "list").stdout


def test_an_alert_is_listed_and_acknowledged(lockkit, desk):
    [one] = document(lockkit, "list")["alerts"]
    assert (one["rule"], one["severity"], one["state"], one["text"]) == (
        "lost",
        "P1",
        "firing",
        "gpu:0 is lost",
    )
    assert document(lockkit, "ack", one["fingerprint"], "--comment", "on it")["acknowledged_by"]
    assert "has it" in lockkit("alerts", "list").stdout
    assert [word.comment for word in desk.decisions().acknowledged.values()] == ["on it"]
    assert document(lockkit, "ack", one["fingerprint"], "--undo")["acknowledged_by"] is None
    assert "has it" not in lockkit("alerts", "list").stdout
    done = lockkit("alerts", "ack", one["fingerprint"], "--undo")
    assert done.returncode == 1
    assert "that somebody deals with" in done.stderr


def test_an_alert_that_is_not_there_cannot_be_acknowledged(lockkit, desk):
    done = lockkit("alerts", "ack", "0" * 12)
    assert done.returncode == 1
    assert "there is no alert '000000000000' (see: lockkit alerts list)" in done.stderr


def test_a_silence_is_made_listed_and_ended(lockkit, desk):
    made = document(
        lockkit, "silence", "--rule", "lo*", "--label", "lock=gpu:*", "--for", "2h", "--comment", "known"
    )
    silence = made["silence"]
    assert silence["ends_seconds"] - silence["starts_seconds"] == pytest.approx(7200.0)
    listed = document(lockkit, "list")
    assert listed["silences"] == [silence]
    assert [one["silenced_by"] for one in listed["alerts"]] == [[silence["id"]]]
    assert "known" in lockkit("alerts", "list").stdout
    assert document(lockkit, "silence", "--end", silence["id"])["ended"] is True
    assert lockkit("alerts", "silence", "--end", silence["id"]).returncode == 1


@pytest.mark.parametrize(
    "line, told",
    [
        (["--rule", "lost"], "--for is missing"),
        (["--for", "1h"], "must say what it is about"),
        (["--for", "1h", "--label", "lock"], "--label is written KEY=PATTERN"),
        (["--for", "1h", "--end", "x"], "--end stands alone"),
    ],
)
def test_what_is_no_silence_is_refused(lockkit, line, told):
    done = lockkit("alerts", "silence", *line)
    assert done.returncode in (64, 78)
    assert told in done.stderr


def test_a_test_message_without_a_channel_says_what_to_write(lockkit):
    done = lockkit("alerts", "test")
    assert done.returncode == 78
    assert "[alerts.channels.NAME]" in done.stderr


def test_doctor_says_that_alerts_wait_for_a_channel_for_too_long(lockkit):
    """The process that runs the engine may be another one, or have ended."""
    (lockkit.folder / "lockkit.toml").write_text(
        "".join(
            f'[alerts.channels.{name}]\ntype = "alertmanager"\nurl = "http://127.0.0.1:9"\n'
            for name in ("pager", "pager2", "fresh")
        )
    )
    config = configuration.load(environ=lockkit.env, cwd=lockkit.folder)
    now = SYSTEM.wall()
    for name, ages in {"pager": (500.0, 400.0, 300.0), "fresh": (1.0,)}.items():
        spool = Spool(config.state_place().path / FOLDER, name)
        kept = [spool.add(Notification("lost", "first", "P1", (), now - age)) for age in ages]
        if len(kept) > 1:
            spool.done([kept[0].number], None)
        spool.close()

    found = [one for one in lockkit.json("doctor")["findings"] if one["check"] == "alerts"]

    assert [(one["severity"], one["hint"]) for one in found] == [("warning", "lockkit alerts test pager")]
    assert "2 alerts wait for channel pager, the first one for 6 min" in found[0]["message"]


PAGER = """
[alerts.channels.pager]
type = "pagerduty"
url = "{url}"
key = "env:PAGER_KEY"
severities = {severities}
"""


@pytest.mark.parametrize(
    "severities, severity", [('["P0", "P1", "P2"]', "critical"), ('["P2", "P1"]', "error")]
)
def test_a_test_pages_as_the_worst_alert_of_the_channel_and_is_resolved(lockkit, severities, severity):
    lockkit.env["PAGER_KEY"] = "k" * 32
    with receiver(Answer(202)) as pager:
        (lockkit.folder / "lockkit.toml").write_text(PAGER.format(url=pager.url, severities=severities))
        done = lockkit("alerts", "test", "--for", "0s")
        page, over = pager.requests

    assert done.returncode == 0
    assert (page.json["event_action"], page.json["payload"]["severity"]) == ("trigger", severity)
    assert "test of lockkit" in page.json["payload"]["summary"]
    assert over.json["event_action"] == "resolve"
    assert over.json["dedup_key"] == page.json["dedup_key"] not in ("", "test")
    assert "pager: pagerduty at 127.0.0.1 has taken the alert" in done.stdout
    assert "reached: pager (pagerduty at 127.0.0.1)" in done.stdout


def test_a_test_that_is_interrupted_before_its_end_is_resolved_at_once(lockkit):
    lockkit.env["PAGER_KEY"] = "k" * 32
    with receiver(Answer(202)) as pager:
        (lockkit.folder / "lockkit.toml").write_text(PAGER.format(url=pager.url, severities='["P0"]'))
        command = lockkit.start("alerts", "test", "--for", "1h")
        pager.wait(1)
        command.send_signal(signal.SIGINT)
        command.communicate(timeout=30)
        *_, over = pager.requests

    assert over.json["event_action"] == "resolve"


def test_a_test_says_who_was_reached_and_who_was_not(lockkit):
    lockkit.env["PAGER_KEY"] = "k" * 32
    with receiver(Answer(202)) as pager, receiver(Answer(500)) as chat:
        (lockkit.folder / "lockkit.toml").write_text(
            PAGER.format(url=pager.url, severities='["P0"]')
            + PAGER.format(url=chat.url, severities='["P0"]').replace("pager]", "other]")
        )
        done = lockkit("alerts", "test", "--for", "0s", "--json")

    assert done.returncode == 1
    told = {one["channel"]: one for one in json.loads(done.stdout)["channels"]}
    assert (told["pager"]["delivered"], told["pager"]["ended"]) == (True, True)
    assert (told["other"]["delivered"], told["other"]["ended"]) == (False, False)
    assert (told["pager"]["service"], told["pager"]["severity"]) == ("pagerduty at 127.0.0.1", "P0")
    assert "500" in told["other"]["error"]


@pytest.mark.parametrize("status, code", [(200, 0), (400, 1)])
def test_a_test_message_reaches_a_channel(lockkit, status, code):
    bodies = []

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            lockkit.env["HOOK"] = f"json://127.0.0.1:{server.server_address[1]}/hook"
            (lockkit.folder / "lockkit.toml").write_text('[alerts.channels.hook]\nurl = "env:HOOK"')
            done = lockkit("alerts", "test", "hook", "--json")
        finally:
            server.shutdown()
            thread.join()
    assert done.returncode == code
    assert b"test of lockkit" in bodies[0]
