"""The tables of channels, where their secrets come from, and how they become deliveries."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import textwrap
import tomllib
from functools import partial
from pathlib import Path

import pytest

from lockkit.alerts.channels import KEYS, TYPES, Channel, channel, secret
from lockkit.alerts.opening import FOLDER, Channels, channels_of, deliver_once, open_channels, plugin_sinks
from lockkit.alerts.outcomes import NotDelivered
from lockkit.alerts.sinks.to_log import ToLog
from lockkit.config.config import load
from lockkit.errors import ConfigError
from lockkit.hooks import hookimpl
from lockkit.observe import journal
from lockkit.plugins.registry import Registry
from support.notifications import notification
from support.receivers import Answer, receiver


def test_a_channel_needs_little():
    got = channel("ops", {"url": "env:OPS"})

    assert got == Channel("ops", "apprise", "env:OPS", severities=("P0", "P1", "P2"), limit=30, window=3600.0)


def test_every_key_is_read():
    table = {
        "type": "dingtalk",
        "url": "https://h/robot",
        "key": "file:/k",
        "sign": "env:S",
        "severities": ["P1", "P0"],
        "limit": 5,
        "window": "10m",
        "timeout": 3,
        "format": "text",
        "ca_file": "/ca.pem",
    }
    got = channel("ops", table)

    assert set(table) == {key.key for key in KEYS}
    assert got == Channel(
        "ops",
        "dingtalk",
        "https://h/robot",
        "file:/k",
        "env:S",
        ("P0", "P1"),
        5,
        600.0,
        3.0,
        "text",
        "/ca.pem",
    )


@pytest.mark.parametrize(
    "table, match",
    [
        ({}, "url is missing"),
        ({"type": "alertmanager"}, "url is missing"),
        ({"type": "pagerduty"}, "key is missing"),
        ({"type": "dingtalk"}, "key is missing"),
        ({"typ": "pagerduty"}, "unknown key typ .*allowed: type, url"),
        ({"type": "pager"}, 'type must be "apprise" or'),
        ({"url": ""}, "url must be"),
        ({"url": 3}, "url must be"),
        ({"type": "pagerduty", "key": "tops3cret"}, 'key must be "env:VARIABLE" or "file:/path"'),
        ({"url": "env:A", "severities": []}, "severities must be"),
        ({"url": "env:A", "severities": "P0"}, "severities must be"),
        ({"url": "env:A", "severities": [["P0"]]}, "severities must be"),
        ({"url": "env:A", "limit": 0}, "limit must be"),
        ({"url": "env:A", "limit": True}, "limit must be"),
        ({"url": "env:A", "window": "soon"}, "window must be"),
        ({"url": "env:A", "timeout": 0}, "timeout must be"),
        ({"url": "env:A", "format": "pdf"}, "format must be"),
    ],
)
def test_a_mistake_is_told_without_secrets(table, match):
    with pytest.raises(ConfigError, match=match) as raised:
        channel("ops", table)
    assert "tops3cret" not in str(raised.value)


@pytest.mark.parametrize("name", ["", "a.b", "../x", "a/b", "-a", "x" * 33])
def test_the_name_of_a_channel_is_a_name_of_a_file(name):
    with pytest.raises(ConfigError, match="must not be called"):
        channel(name, {"url": "env:A"})


def test_an_error_names_the_file_and_the_table():
    sources = {"alerts.channels.ops": "/etc/lockkit/config.toml"}
    with pytest.raises(
        ConfigError, match=r"^/etc/lockkit/config.toml: \[alerts.channels.ops\]: url is missing"
    ):
        channels_of({"ops": {}}, sources)


def test_the_repr_has_no_secrets():
    assert "tops3cret" not in repr(channel("ops", {"url": "slack://tops3cret/a/b"}))


def test_a_secret_comes_from_a_variable_or_a_file_that_is_read_each_time(tmp_path):
    file = tmp_path / "key"
    file.write_text("  first\n")
    read = partial(secret, f"file:{file}")

    assert secret("env:KEY", {"KEY": " value\n"}) == "value"
    assert read() == "first"
    file.write_text("second")
    assert read() == "second"
    assert secret("json://host/x") == "json://host/x"


def test_a_secret_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ConfigError, match="KEY is not set"):
        secret("env:KEY", {"KEY": ""})
    with pytest.raises(ConfigError, match="cannot read"):
        secret(f"file:{tmp_path}/none")
    empty = tmp_path / "empty"
    empty.write_text("\n")
    with pytest.raises(ConfigError, match="contains no secret"):
        secret(f"file:{empty}")


def test_a_file_that_everybody_may_write_to_is_refused(tmp_path):
    file = tmp_path / "key"
    file.write_text("slack://evil")
    file.chmod(0o666)

    with pytest.raises(ConfigError, match="everybody may write"):
        secret(f"file:{file}")


def test_each_channel_gets_what_it_is_for(tmp_path):
    with receiver(Answer(202)) as pager, receiver(Answer(200)) as manager:
        channels = [
            channel("pager", {"type": "pagerduty", "url": pager.url, "key": "env:K", "severities": ["P0"]}),
            channel("am", {"type": "alertmanager", "url": manager.url}),
        ]
        seen = []
        with pytest.raises(ConfigError):
            channel("am", {"type": "alertmanager", "url": manager.url, "key": "literal"})
        all_of_them = Channels(channels, tmp_path, more={"mine": seen.append}, environ={"K": "k" * 32})
        assert all_of_them.put(notification(0, severity="P2"))
        assert all_of_them.put(notification(1, severity="P0"))
        manager.wait(2)
        pager.wait(1)
        for one in all_of_them.each.values():
            assert one.flush(30.0)
        assert all_of_them.close() == 0

    assert [request.json["dedup_key"] for request in pager.requests] == ["emergency_rate 1"]
    assert len(seen) == 2
    assert [state.channel for state in all_of_them.states()] == ["pager", "am", "mine"]
    assert (tmp_path / FOLDER / "pager.jsonl").exists()


def test_a_missing_secret_is_a_failure_that_can_be_put_right():
    with receiver(Answer(202)) as pager:
        environ = {}
        one = channel("pager", {"type": "pagerduty", "url": pager.url, "key": "env:K"})
        assert "K is not set" in deliver_once(one, notification(), environ).error
        environ["K"] = "k" * 32
        assert deliver_once(one, notification(), environ).delivered


def test_log_and_journal_have_every_alert(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    sink = ToLog(partial(journal.append, tmp_path, file="alerts.jsonl"))
    sink(notification(severity="P0"))
    sink(notification(severity="P0", reason="all_resolved"))

    assert [record.levelname for record in caplog.records] == ["CRITICAL", "INFO"]
    assert caplog.records[0].message == (
        "lockkit P0: gpu:0: 12 emergency releases of gpu:0 in an hour [first, group emergency_rate 0]; next: "
        "lockkit why gpu:0"
    )
    first, second = journal.read(tmp_path, file="alerts.jsonl")
    assert (first["kind"], first["severity"], first["reason"]) == ("alert", "P0", "first")
    assert second["reason"] == "all_resolved"
    assert json.dumps(first)


def test_a_journal_that_fails_breaks_nothing(caplog):
    def full(_record):
        raise OSError("no space left")

    ToLog(full)(notification())

    assert "no space left" in caplog.text


def test_nothing_heavy_is_imported_before_the_first_alert():
    program = (
        "import sys\n"
        "from lockkit.alerts.opening import Channels\n"
        "from lockkit.alerts.channels import channel\n"
        "d = Channels([channel('a', {'url': 'env:A'}), "
        "channel('b', {'type': 'pagerduty', 'key': 'env:B'})], None)\n"
        "print([name for name in ('apprise', 'requests', 'http.client', 'ssl', 'msgspec') "
        "if name in sys.modules])\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )

    assert told.stdout.strip() == "[]"


def test_the_time_of_a_single_delivery_begins_once_apprise_is_imported():
    """The import takes longer than the service on a busy machine."""
    program = textwrap.dedent(
        """
        import sys
        from lockkit.alerts import opening
        from lockkit.alerts.channels import channel
        opening.attempt = lambda *_: print("apprise" in sys.modules)
        opening.deliver_once(channel("phone", {"url": "json://127.0.0.1:1/"}), None)
        """
    )
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )

    assert told.stdout.strip() == "True"


def test_every_type_can_be_opened():
    for kind in TYPES:
        key = {} if kind == "apprise" else {"key": "env:K"}
        assert not deliver_once(
            channel("x", {"type": kind, "url": "env:U", **key}), notification(), {}
        ).delivered


def test_the_hook_of_a_plugin_is_a_channel_of_its_own(tmp_path):
    seen, failures = [], [OSError("not yet")]

    class Board:
        @hookimpl
        def lockkit_sink(self, notification):
            if failures:
                raise failures.pop()
            seen.append(notification)

    plugins = Registry()
    plugins.enter("my board/1", Board())
    all_of_them = Channels([], tmp_path, more=plugin_sinks(plugins.implementations("lockkit_sink")))
    all_of_them.put(notification())
    (one,) = all_of_them.each.values()
    assert one.flush(30.0)
    all_of_them.close()

    assert seen == [notification()]
    assert one.name == "@my-board-1"


@pytest.mark.parametrize("page", ["howto/alert-channels.md", "reference/config.md"])
def test_the_tables_on_a_page_are_right(page):
    text = (Path(__file__).parents[2] / "docs" / page).read_text()
    found = [
        one
        for block in re.findall(r"^```toml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        for one in channels_of(tomllib.loads(block).get("alerts", {}).get("channels", {}), {})
    ]

    assert found


def test_the_channels_of_a_configuration_are_opened(tmp_path):
    file = tmp_path / "lockkit.toml"
    with receiver(Answer(200)) as manager:
        file.write_text(
            f'state_dir = "{tmp_path}/state"\n'
            f'[alerts.channels.am]\ntype = "alertmanager"\nurl = "{manager.url}"\n'
        )
        channels = open_channels(load(config=file, environ={}, etc=tmp_path / "none"))
        channels.put(notification())
        manager.wait(1)
        channels.close()

    assert (tmp_path / "state" / FOLDER / "am.jsonl").exists()


def test_a_channel_whose_service_refuses_an_alert_is_found_while_it_delivers_others():
    seen = []

    def picky(told):
        if told.group == "bad":
            raise NotDelivered("answered 422", rejected=True)
        seen.append(told.group)

    channels = Channels([], None, more={"ops": picky})
    try:
        for group in ("bad", "good"):
            channels.put(notification(group=group))
        (one,) = channels.each.values()
        while one.state().waiting > 1:
            one.flush(0.01)
        (found,) = channels.findings()
    finally:
        channels.close()

    assert seen == ["good"]
    assert found.severity == "warning"
    assert "answered 422" in found.message
