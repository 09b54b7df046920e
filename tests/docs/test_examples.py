"""Two plugins of the how-to pages work: installed from their own wheels, and seen through real releases."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from support import receivers


@pytest.fixture(scope="module")
def cleanup_site(installed):
    return installed("scratch-cleanup")


@pytest.fixture(scope="module")
def alert_site(installed):
    return installed("webhook-alert")


@pytest.fixture
def receiver():
    """A real HTTP server on loopback; what it was sent, and its address."""
    got = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield got, f"http://127.0.0.1:{server.server_port}/hook"
        finally:
            server.shutdown()
            thread.join()


RELEASE = """
import lockkit
client = lockkit.connect("memory:")
report = client.lock("train/a").acquire(timeout=1).release()
cleanup = report.layers[0]
print(report.outcome, cleanup.layer, cleanup.outcome, cleanup.hooks[0].plugin, cleanup.error)
"""


@pytest.fixture
def scratch(tmp_path):
    folder = tmp_path / "scratch" / "train%2Fa"
    folder.mkdir(parents=True)
    (folder / "left.bin").write_text("x")
    (folder / "deep" / "er").mkdir(parents=True)
    return folder


def test_the_cleanup_plugin_empties_the_folder_in_a_release(program, cleanup_site, scratch):
    done = program(
        RELEASE, site=cleanup_site, config=f'[plugins.scratch-cleanup]\nroot = "{scratch.parent}"\n'
    )

    assert done.stdout.split() == ["RELEASED", "cleanup", "DONE", "scratch_cleanup", "None"]
    assert list(scratch.iterdir()) == []


def test_the_cleanup_plugin_keeps_what_it_is_told_to_keep(program, cleanup_site, scratch):
    table = f'[plugins.scratch-cleanup]\nroot = "{scratch.parent}"\nkeep = ["train/a"]\n'

    program(RELEASE, site=cleanup_site, config=table)

    assert (scratch / "left.bin").exists()


def test_the_cleanup_plugin_leaves_the_files_of_the_next_holder(program, cleanup_site, scratch):
    lost = RELEASE.replace(
        ".release()",
        '\nclient.evict("train/a", report.claim_id, reason="a test", now=True)'
        "\ntry: report.confirm()\nexcept lockkit.LeaseLost: report = report.release()",
    )

    done = program(lost, site=cleanup_site, config=f'[plugins.scratch-cleanup]\nroot = "{scratch.parent}"\n')

    assert done.stdout.startswith("LOST")
    assert (scratch / "left.bin").exists()


@pytest.mark.parametrize(
    "table, told",
    [
        (
            'rot = "/tmp"',
            "[plugins.scratch-cleanup] rot: Object contains unknown field `rot` (did you mean root?",
        ),
        ("", "[plugins.scratch-cleanup]: Object missing required field `root`"),
        ('root = "tmp"', "[plugins.scratch-cleanup]: root must be an absolute path"),
    ],
)
def test_a_wrong_table_of_the_cleanup_plugin_is_an_error_before_the_lock_is_taken(
    program, cleanup_site, tmp_path, table, told
):
    text = f"[plugins.scratch-cleanup]\n{table}\n"

    done = program(RELEASE, site=cleanup_site, config=text, check=False)
    assert done.stdout == ""
    *_, last = done.stderr.splitlines()
    assert last.startswith("lockkit.errors.ConfigError: ")
    assert told in last
    assert str(tmp_path / "config.toml") in last or not table

    for line, code in (
        (["config", "check"], 78),
        (["run", "x", "--", "touch", "ran"], 78),
        (["doctor"], 2),
    ):
        done = program(
            f"import sys; from lockkit.cli.main import main; main({line})",
            site=cleanup_site,
            config=text,
            check=False,
        )
        assert (done.returncode, (done.stdout + done.stderr).count(told)) == (code, 1)
    assert not (tmp_path / "home/ran").exists()


def test_the_health_hook_tells_a_missing_folder_before_the_first_release(program, cleanup_site):
    check = """
import lockkit
for found in lockkit.connect("memory:").check():
    print(found.check, found.severity, found.message)
"""

    done = program(check, site=cleanup_site, config='[plugins.scratch-cleanup]\nroot = "/no/such/folder"\n')

    assert "scratch-cleanup warning /no/such/folder is not there" in done.stdout


ALERT = """
import lockkit
client = lockkit.connect("memory:")
lease = client.lock("gpu:0").acquire(timeout=1)
client.evict("gpu:0", lease.claim_id, reason="a test", now=True)
print(lease.release().outcome)
client.close()
"""


def test_the_alert_plugin_posts_what_a_release_found(program, alert_site, receiver):
    got, url = receiver

    done = program(ALERT, site=alert_site, config=f'[plugins.webhook-alert]\nurl = "{url}"\n')

    assert done.stdout.split() == ["LOST"]
    assert [(alert["kind"], alert["priority"], alert["lock"]) for alert in got] == [
        ("ownership_violation", "P1", "gpu:0")
    ]


def test_the_alert_plugin_takes_a_redirect_for_a_failure(program, alert_site):
    with receivers.receiver() as other, receivers.receiver() as moved:
        moved.usual = receivers.Answer(302, "", {"Location": other.url})
        config = f'[plugins.webhook-alert]\nurl = "{moved.url}/hook"\n'
        done = program(ALERT, site=alert_site, config=config)

    assert len(moved.requests) == 1
    assert "redirects to another address" in done.stderr


def test_the_alert_plugin_sends_only_the_priorities_asked_for(program, alert_site, receiver):
    got, url = receiver

    program(ALERT, site=alert_site, config=f'[plugins.webhook-alert]\nurl = "{url}"\npriorities = ["P0"]\n')

    assert got == []


@pytest.mark.parametrize(
    "table,said",
    [
        ("prio = []", "prio"),
        ('url = "x"\npriorities = ["P9"]', "priorities"),
        ("", "url"),
        ('url = "x"', "https://"),
    ],
)
def test_a_wrong_table_of_the_alert_plugin_is_an_error_at_the_start(program, alert_site, table, said):
    done = program(ALERT, site=alert_site, config=f"[plugins.webhook-alert]\n{table}\n", check=False)

    assert done.stdout == ""
    *_, last = done.stderr.splitlines()
    assert "ConfigError" in last
    assert "[plugins.webhook-alert]" in last
    assert said in last


def test_a_plugin_with_a_wrong_table_can_be_left_out(program, alert_site):
    table = "[plugins.webhook-alert]\nprio = []\n"

    done = program(ALERT, site=alert_site, config=f'disable_plugins = ["webhook-alert"]\n{table}')

    assert done.stdout.split() == ["LOST"]
