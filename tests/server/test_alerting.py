"""``lockkit serve`` runs the alert engine: an alert and its end reach a real receiver."""

from __future__ import annotations

import json
import re
import shutil
import signal
import urllib.request

import pytest

import lockkit
from lockkit.alerts.desk import Desk, folder_of
from lockkit.config import config as configuration
from lockkit.observe import journal
from lockkit.server.alerting import inbox_for
from lockkit.testing.processes import until
from lockkit.values.names import ALERTER
from support.receivers import Answer, receiver

ACCEPTED = Answer(202, '{"status": "success", "message": "Event processed", "dedup_key": "x"}')
RULES = """
age_hard = "100ms"
age_soft = "90ms"
age_warning = "80ms"
[alerts]
group_wait = "1s"
group_interval = "1s"
look_every = "1s"
[alerts.rules.old_hold]
severity = "P0"
"""
CHANNEL = """
[alerts.channels.pager]
type = "pagerduty"
url = "{url}"
key = "env:PAGER_KEY"
"""


@pytest.fixture
def alerting(begun, tmp_path):
    """Start ``lockkit serve`` with rules that fire soon; gives the process and its address."""

    def start(text, *words):
        (tmp_path / "lockkit.toml").write_text(text)
        process, line = begun(
            *("--json", "--url", f"sqlite:{tmp_path}/locks.db", *words),
            LOCKKIT_CONFIG=str(tmp_path / "lockkit.toml"),
            PAGER_KEY="k" * 32,
        )
        return process, json.loads(line)["url"]

    return start


def notified(tmp_path):
    return [one for one in journal.read(tmp_path / "state", file="alerts.jsonl") if one["kind"] == "alert"]


def test_a_hold_that_is_too_old_reaches_a_pager_and_so_does_its_end(alerting, tmp_path):
    with (
        receiver(ACCEPTED) as pager,
        lockkit.connect(f"sqlite:{tmp_path}/locks.db", state_dir=str(tmp_path / "state")) as client,
    ):
        lease = client.lock("nightly").acquire()
        process, _ = alerting(RULES + CHANNEL.format(url=pager.url))

        (first,) = pager.wait(1)
        config = configuration.load(
            f"sqlite:{tmp_path}/locks.db", environ={}, state_dir=str(tmp_path / "state")
        )
        desk = Desk(folder_of(config))
        (seen,) = [one for one in desk.alerts() if one.alert.labels.get("lock") == "nightly"]
        desk.acknowledge(seen.alert.fingerprint, author="ann")
        lease.release()
        *_, last = pager.wait(2)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)

    assert first.json["event_action"] == "trigger"
    assert first.json["payload"]["severity"] == "critical"
    assert "nightly" in first.json["payload"]["summary"]
    assert last.json["event_action"] == "resolve"
    assert last.json["dedup_key"] == first.json["dedup_key"] != "old_hold"
    assert process.returncode == 0
    assert "nightly has been held for" in err
    assert [one["reason"] for one in notified(tmp_path)] == ["first", "all_resolved"]


@pytest.mark.parametrize("first", ["", CHANNEL.replace("pager]", "desk]")], ids=["none", "another"])
def test_the_pager_is_told_though_a_server_with_other_channels_runs_the_engine(begun, tmp_path, first):
    """Two servers of one user, host and store; the second starts once the first one has the engine."""
    with (
        receiver(ACCEPTED) as desk,
        receiver(ACCEPTED) as pager,
        lockkit.connect(f"sqlite:{tmp_path}/locks.db", state_dir=str(tmp_path / "state")) as client,
    ):

        def serve(name, text):
            (tmp_path / name).write_text(text)
            begun(
                *("--json", "--url", f"sqlite:{tmp_path}/locks.db"),
                LOCKKIT_CONFIG=str(tmp_path / name),
                PAGER_KEY="k" * 32,
            )

        serve("first.toml", RULES + first.format(url=desk.url))
        state = folder_of(client.config) / "state.json"
        until(state.exists, "the first runs the engine", 30.0)
        serve("second.toml", RULES + CHANNEL.format(url=pager.url))
        until(lambda: any(state.parent.glob("channels/pager*.lock")), "the second has its channel", 30.0)
        lease = client.lock("nightly").acquire()
        (fired,) = pager.wait(1)
        lease.release()
        *_, over = pager.wait(2)

    assert "nightly" in fired.json["payload"]["summary"]
    assert (over.json["event_action"], over.json["dedup_key"]) == ("resolve", fired.json["dedup_key"])
    assert [one.json["event_action"] for one in desk.requests] == (["trigger", "resolve"] if first else [])


@pytest.fixture
def redis():
    if shutil.which("redis-server") is None:
        pytest.skip("there is no redis-server")
    from support.servers.redis import RedisServer

    with RedisServer() as server:
        yield server.url()


def test_an_incident_ends_though_the_engine_has_moved_to_another_host(redis, begun, tmp_path):
    """Like a replaced pod: nothing of its disk is left, and the new one's URL may be spelt otherwise."""

    def pod(number, url):
        (tmp_path / "lockkit.toml").write_text(RULES + CHANNEL.format(url=pager.url))
        return begun(
            *("--json", "--url", url),
            LOCKKIT_CONFIG=str(tmp_path / "lockkit.toml"),
            LOCKKIT_STATE_DIR=str(tmp_path / f"pod-{number}"),
            POD_NAME=f"lockkit-{number}",
            PAGER_KEY="k" * 32,
        )[0]

    with receiver(ACCEPTED) as pager, lockkit.connect(redis, state_dir=str(tmp_path / "own")) as client:
        lease = client.lock("nightly").acquire()
        one = pod(1, redis)
        pager.wait(1)
        one.send_signal(signal.SIGTERM)
        one.wait(timeout=30)
        two = pod(2, redis.replace("127.0.0.1", "localhost").removesuffix("/0") + "?ttl=30s")
        *_, second = pager.wait(2)
        lease.release()
        *_, last = pager.wait(3)
        two.send_signal(signal.SIGTERM)
        two.wait(timeout=30)

    sent = [one.json for one in pager.requests]
    assert [each["event_action"] for each in sent] == ["trigger", "trigger", "resolve"]
    assert len({each["dedup_key"] for each in sent}) == 1
    assert second.json["dedup_key"] == last.json["dedup_key"]


def test_a_server_without_channels_keeps_no_alert_from_those_of_another(redis, begun, tmp_path):
    def start(name, text):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "lockkit.toml").write_text(text)
        _, line = begun(
            *("--json", "--url", redis),
            LOCKKIT_CONFIG=str(folder / "lockkit.toml"),
            LOCKKIT_STATE_DIR=str(folder / "state"),
            PAGER_KEY="k" * 32,
        )
        return json.loads(line)["url"]

    def seen(url):
        with urllib.request.urlopen(f"{url.rstrip('/')}/api/alerts") as answer:
            return [one["rule"] for one in json.load(answer)["alerts"]]

    with receiver(ACCEPTED) as pager, lockkit.connect(redis, state_dir=str(tmp_path / "own")) as client:
        first = start("first", RULES)
        with client.lock("job").acquire():
            until(lambda: "old_hold" in seen(first), "the first one looks")
            start("second", RULES + CHANNEL.format(url=pager.url))
            until(lambda: pager.requests, "the pager of the other is told")


def test_a_channel_that_hangs_does_not_keep_the_server_from_ending(alerting, tmp_path):
    with (
        receiver(Answer(0)) as pager,
        lockkit.connect(f"sqlite:{tmp_path}/locks.db", state_dir=str(tmp_path / "state")) as client,
        client.lock("nightly").acquire(),
    ):
        process, _ = alerting(RULES + CHANNEL.format(url=pager.url))
        pager.wait(1)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)

        assert client.inspect(ALERTER).claims == ()

    assert process.returncode == 0
    assert len(notified(tmp_path)) == 1
    (kept,) = (tmp_path / "state" / "alert-spool").glob("pager*.jsonl")
    assert "nightly" in kept.read_text()


def test_a_channel_that_fails_is_a_reason_in_health_and_has_metrics(alerting, tmp_path):
    with (
        receiver(Answer(500)) as pager,
        lockkit.connect(f"sqlite:{tmp_path}/locks.db", state_dir=str(tmp_path / "state")) as client,
        client.lock("nightly").acquire(),
    ):
        _, url = alerting(
            RULES
            + CHANNEL.format(url=pager.url)
            + CHANNEL.replace("pager]", "dumb]").replace("PAGER_", "NO_")
        )
        pager.wait(1)
        got = {}

        def told():
            with urllib.request.urlopen(f"{url}health", timeout=30) as answer:
                (store,) = json.load(answer)["stores"]
            for one in store["reasons"]:
                if one["check"] == "alerts":
                    got[one["message"].partition(":")[0]] = one
            return len(got) == 2

        until(told, "health names both channels", 30.0)
        with urllib.request.urlopen(f"{url}metrics", timeout=30) as answer:
            metrics = answer.read().decode()

    assert {one["verdict"] for one in got.values()} == {"warning"}
    assert "1 alert waits" in got["channel pager"]["message"]
    assert "500" in got["channel pager"]["message"]
    assert got["channel pager"]["hint"] == "lockkit alerts test pager"
    assert "the variable NO_KEY is not set" in got["channel dumb"]["message"]
    assert re.search(r'lockkit_alert_channel_failures\{channel="pager"\} [1-9]', metrics)
    assert re.search(r'lockkit_alert_channel_waiting\{channel="pager"\} [1-9]', metrics)


def test_an_alert_that_the_service_refuses_is_counted(alerting, tmp_path):
    with (
        receiver(Answer(400, '{"status": "invalid event"}')) as pager,
        lockkit.connect(f"sqlite:{tmp_path}/locks.db", state_dir=str(tmp_path / "state")) as client,
        client.lock("nightly").acquire(),
    ):
        _, url = alerting(RULES + CHANNEL.format(url=pager.url))
        pager.wait(1)

        def metrics():
            with urllib.request.urlopen(f"{url}metrics", timeout=30) as answer:
                return answer.read().decode()

        until(lambda: 'lockkit_alert_channel_set_aside{channel="pager"} 1' in metrics(), "set aside", 30.0)
        assert 'lockkit_alert_channel_given_up_total{channel="pager"} 0' in metrics()


def test_a_wrong_channel_is_an_error_at_the_start(begun, tmp_path):
    (tmp_path / "lockkit.toml").write_text('[alerts.channels.pager]\ntype = "pagerduty"\n')
    process, line = begun(LOCKKIT_CONFIG=str(tmp_path / "lockkit.toml"))
    _, err = process.communicate(timeout=30)

    assert (line, process.returncode) == ("", 78)
    assert "[alerts.channels.pager]: key is missing" in err


@pytest.mark.parametrize("text", ["[serve]\nalerts = false\n", "*"], ids=["off", "no rule"])
def test_no_alerts_are_told_where_they_are_off_or_no_rule_is_in_force(tmp_path, text):
    if text == "*":
        from lockkit.alerts.shipped import SHIPPED

        text = "".join(f"[alerts.rules.{name}]\nenabled = false\ninhibits = []\n" for name in SHIPPED)
    (tmp_path / "lockkit.toml").write_text(text)
    config = configuration.load("memory:", config=tmp_path / "lockkit.toml", environ={})

    assert inbox_for(config) is None


def test_by_default_alerts_are_told(tmp_path):
    assert inbox_for(configuration.load("memory:", config=None, environ={}, cwd=tmp_path)) is not None
