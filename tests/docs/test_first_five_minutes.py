"""docs/first-five-minutes.md and docs/layout.md, followed step by step."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

import lockkit
from lockkit.observe import journal
from lockkit_sqlite.layout import FAR
from support.programs import programs

ROOT = Path(__file__).parents[2]


@pytest.fixture
def environ(tmp_path):
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    clean = {key: value for key, value in os.environ.items() if not key.startswith("LOCKKIT_")}
    return clean | {"HOME": str(tmp_path), "LOCKKIT_STATE_DIR": str(state), "LOCKKIT_CONFIG": "/dev/null"}


@pytest.fixture
def terminal(environ, tmp_path):
    """Start a command line as a terminal would; it is gone when the test is."""
    apart = {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE, "start_new_session": True}
    with programs(env=environ, cwd=tmp_path, **apart) as start:
        yield partial(start, sys.executable, "-m", "lockkit")


def said(process, code=0):
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    return out, err


def held(terminal, state="held"):
    """Wait until the lock of the page is in that state."""
    end = time.monotonic() + 40
    while time.monotonic() < end:
        out, _ = said(terminal("status"))
        if re.search(rf"^backup +{state} ", out, re.MULTILINE):
            return out
    raise AssertionError(out)


def waiting_line(process):
    while line := process.stderr.readline():
        if line.startswith("waiting for"):
            return line
    raise AssertionError("it never waited")


def test_two_terminals_and_kill_9(terminal):
    first = terminal("run", "backup", "--", "sleep", "60")
    held(terminal)
    second = terminal("run", "backup", "--", "echo", "my turn")

    line = waiting_line(second)
    pid = int(
        re.fullmatch(
            r"waiting for 'backup': you are 1st; held by \S+ pid (\d+) \(sleep\), .*(?:s|just now)\n", line
        )[1]
    )
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)

    assert said(second)[0] == "my turn\n"
    assert time.monotonic() - began < 20  # its ttl is 30 s
    assert first.wait(40) == -signal.SIGKILL


def test_status_and_explain_show_what_the_page_shows(terminal):
    terminal("run", "backup", "--", "sleep", "60")
    status = held(terminal)
    explained, _ = said(terminal("explain", "backup"))

    page = (ROOT / "docs/first-five-minutes.md").read_text()
    block = page.partition("$ lockkit status\n")[2].partition("```")[0]
    shown_status, _, shown = block.partition("$ lockkit explain backup\n")
    assert shape(status) == shape(shown_status)
    assert shape(explained) == shape(shown)


def shape(text):
    """Replace the parts of a page that differ from run to run: owners, times, places, claims, columns."""
    text = re.sub(r"sqlite:/\S+", "STORE", text)
    text = re.sub(r"\S+@\S+ pid \d+", "WHO", text)
    text = re.sub(r"(\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d", "TIME", text)  # with the date around midnight
    text = re.sub(r"\b[0-9a-f]{12}\b", "CLAIM", text)
    text = re.sub(r"[\d.]+ s\b|\bjust now\b", "SPAN", text)
    text = re.sub(r"\d{16}", "FENCE", text)
    return re.sub(r" +", " ", text).splitlines()


def test_the_exit_codes_of_the_page(terminal):
    terminal("run", "backup", "--", "sleep", "60")
    held(terminal)

    said(terminal("run", "backup", "--no-wait", "--", "true"), 75)
    said(terminal("run", "backup", "--timeout", "1s", "--", "true"), 124)
    said(terminal("run", "-E", "0", "backup", "--no-wait", "--", "true"), 0)


def test_doctor_finds_nothing_wrong_here(terminal):
    out, _ = said(terminal("doctor"))

    assert "error:" not in out


@pytest.fixture
def store(tmp_path):
    folder = tmp_path / "store"
    folder.mkdir(mode=0o700)
    return folder / "lockkit.db"


def test_the_layout_page_names_every_table_and_column(store):
    with lockkit.connect(f"sqlite:{store}") as client, client.lock("a").acquire():
        page = (ROOT / "docs/layout.md").read_text()
        with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as database:
            tables = [
                name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            ]
            for table in tables:
                section = page.partition(f"\n### {table}\n")[2].partition("\n##")[0]
                documented = set(
                    re.findall(r"`(\w+)`", re.sub(r"\|[^|]*\|$", "", section, flags=re.MULTILINE))
                )
                columns = {row[1] for row in database.execute(f"PRAGMA table_info({table})")}
                assert columns == documented, table
        database.close()


def test_the_one_liners_of_the_layout_page_work_and_change_nothing(store):
    lines = re.findall(
        r'^\$ sqlite3 (?:-box )?"\$db" "(.*)"$', (ROOT / "docs/layout.md").read_text(), re.MULTILINE
    )
    with lockkit.connect(f"sqlite:{store}") as client, client.lock("backup").acquire() as lease:
        told = []
        for sql in lines:
            database = sqlite3.connect(f"file:{store}?mode=ro", uri=True)
            rows = database.execute(sql).fetchall()
            database.close()
            assert len(rows) == 1, sql
            told.append(str(rows))
        lease.confirm()

    assert len(lines) == 4
    assert f"deadline < {FAR} " in lines[1]
    assert "'backup', 'HELD'" in told[0]
    assert lease.token not in "".join(told)


def test_a_stuck_lock_is_freed_by_the_line_that_explain_prints(terminal):
    holder = terminal("run", "--ttl", "2s", "--kill-after", "0.5s", "backup", "--", "sleep", "60")
    held(terminal)
    explained, _ = said(terminal("explain", "backup"))
    line = re.search(r'lockkit evict backup --claim (\w{12}) --reason "\.\.\."', explained)

    said(terminal("evict", "backup", "--claim", line[1], "--reason", "hung since midnight"))

    assert said(terminal("run", "backup", "--timeout", "30s", "--", "echo", "mine"))[0] == "mine\n"
    assert holder.wait(40) == 76


def test_a_failed_release_is_listed_shown_and_resolved(terminal, environ):
    identity = journal.append(
        environ["LOCKKIT_STATE_DIR"], {"name": "backup", "claim": "d12979f233d2", "fence": 7}
    )

    assert identity in said(terminal("failures", "list"))[0]
    assert "backup" in said(terminal("failures", "show", identity))[0]
    said(terminal("failures", "resolve", identity))
    assert identity not in said(terminal("failures", "list"))[0]
