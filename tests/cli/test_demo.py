"""The demo checks itself; and its check can fail."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from lockkit.cli import main
from lockkit.cli.commands import demo
from lockkit.cli.demo.history import Entry, HeldSpan, fences_rise, holds, no_overlap
from lockkit.cli.demo.timeline import Style, draw
from lockkit.lib.descent import descendants


def test_the_demo_passes_and_is_plain_in_a_pipe(lockkit):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = lockkit(
        "demo",
        env={"COLUMNS": "80", "PYTHONIOENCODING": "ascii", "TMPDIR": str(lockkit.folder), "PATH": path},
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert done.stdout.isascii()
    assert done.stdout.rstrip().splitlines()[-2].strip() == "lockkit run backup -- sleep 60"
    assert list(lockkit.folder.glob("lockkit-demo-*")) == []
    assert done.stderr == ""


def test_the_command_to_try_next_can_be_typed_as_it_is_shown(tmp_path, monkeypatch):
    installed, other = tmp_path / "venv/bin/lockkit", tmp_path / "other/lockkit"
    for script in (installed, other):
        script.parent.mkdir(parents=True)
        script.touch(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["venv/bin/lockkit", "demo"])

    monkeypatch.setenv("PATH", str(tmp_path))
    assert demo._called() == "venv/bin/lockkit"
    monkeypatch.setenv("PATH", f"{other.parent}:{installed.parent}")
    assert demo._called() == "venv/bin/lockkit"
    monkeypatch.setenv("PATH", str(installed.parent))
    assert demo._called() == "lockkit"
    monkeypatch.setattr(sys, "argv", ["/x/lockkit/__main__.py", "demo"])
    assert demo._called() == f"{sys.executable} -m lockkit"


def test_the_demo_on_redis_passes_and_stops_its_server(lockkit):
    done = lockkit("demo", "--on", "redis", "--json", env={"TMPDIR": str(lockkit.folder)}, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    kill = next(one for one in json.loads(done.stdout)["checks"] if one["check"] == "kill")
    assert "its ttl is 1.5 s" in kill["message"]
    assert list(lockkit.folder.glob("lockkit-*")) == []


def test_the_demo_on_redis_says_what_is_missing(lockkit):
    done = lockkit("demo", "--on", "redis", env={"PATH": "/nowhere"})
    assert done.returncode == 78, done.stderr
    assert "redis-server or valkey-server is not installed" in done.stderr
    assert "apt-get install redis-server" in done.stderr


def test_the_demo_on_redis_says_what_to_install_for_its_client(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    assert main.run(["demo", "--on", "redis"]) == 78
    err = capsys.readouterr().err
    assert err == 'lockkit: the demo on Redis needs redis (pip install "lockkit[redis]")\n'


def test_ctrl_c_ends_the_demo_without_a_traceback(lockkit):
    demo = lockkit.start("demo", start_new_session=True)
    while "holds the lock" not in demo.stdout.readline():
        assert demo.poll() is None
    os.killpg(demo.pid, signal.SIGINT)
    _, err = demo.communicate(timeout=40)
    assert (demo.returncode, err) == (130, "lockkit: interrupted\n")


@pytest.mark.parametrize("on", ["sqlite", pytest.param("redis", marks=pytest.mark.full)])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_ends_the_demo_leaves_nothing_behind(lockkit, alive, number, on):
    lockkit.env["TMPDIR"] = str(lockkit.folder)
    demo = lockkit.start("demo", "--on", on, start_new_session=True)
    while "holds the lock" not in demo.stdout.readline():
        assert demo.poll() is None
    workers = descendants(demo.pid)
    assert len(workers) >= 5
    demo.send_signal(number)
    _, err = demo.communicate(timeout=40)
    assert (demo.returncode, err) == (128 + number, f"lockkit: ended by {number.name}\n")
    lockkit.until(lambda: not any(map(alive, workers)))
    assert list(lockkit.folder.glob("lockkit-*")) == []


@pytest.mark.parametrize(
    "spoil, check", [("overlap", "overlap"), ("fence", "fence"), ("leftover", "leftovers")]
)
def test_a_spoiled_demo_fails_by_the_check_for_it(lockkit, spoil, check):
    done = lockkit("demo", "--break", spoil, "--json", timeout=100)
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert document["ok"] is False
    assert check in {one["check"] for one in document["checks"] if not one["ok"]}


def test_holds_are_read_from_a_log():
    log = [
        Entry(0, "waits"),
        Entry(1, "holds", 5),
        Entry(2, "sure"),
        Entry(2.1, "released"),
        Entry(3, "holds", 6),
    ]
    assert holds("ann", log) == [HeldSpan("ann", 1, 2, 5, "released"), HeldSpan("ann", 3, 3, 6, "killed")]


def test_an_overlap_behind_a_short_hold_is_found():
    found = [
        HeldSpan("a", 0, 10, 1, "released"),
        HeldSpan("b", 11, 12, 2, "released"),
        HeldSpan("c", 13, 13, 3, "released"),
    ]
    assert no_overlap(found, 3).ok
    assert not no_overlap([*found, HeldSpan("d", 9, 9.5, 4, "released")], 3).ok
    assert not no_overlap(
        [HeldSpan("a", 0, 10, 1, "released"), HeldSpan("b", 1, 2, 2, "lost"), HeldSpan("c", 3, 4, 3, "lost")],
        3,
    ).ok


def test_too_few_holds_prove_nothing():
    assert not no_overlap([HeldSpan("a", 0, 1, 1, "released")], 2).ok


def test_equal_fences_are_an_error():
    assert not fences_rise([HeldSpan("a", 0, 1, 7, "released"), HeldSpan("b", 2, 3, 7, "released")]).ok


def test_the_timeline_fits_its_width():
    logs = {
        "ann": [Entry(0, "waits"), Entry(1, "holds", 1), Entry(2, "sure"), Entry(2, "released")],
        "bob": [Entry(5, "waits")],
    }
    rows = draw(logs, holds("ann", logs["ann"]), {"bob": (4, 5)}, 60, Style.of(unicode=False, colour=False))
    assert max(map(len, rows[:-1])) <= 60
    assert "#" in rows[1]
    assert "." in rows[1]
