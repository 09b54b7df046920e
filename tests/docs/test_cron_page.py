"""docs/howto/cron.md: its lines for cron are run as cron runs them, and systemd understands its units."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import lockkit
from support.pages import section

PAGE = "docs/howto/cron.md"
BIN = str(Path(sys.executable).parent)


@pytest.fixture
def lines(pages):
    """The commands of the crontab, by the name of their lock."""
    (table,) = re.findall(r"^```text\n(.*?)^```", section(pages[PAGE], "## cron"), re.MULTILINE | re.DOTALL)
    commands = [row.split(None, 5)[5] for row in table.splitlines() if row[0] in "*0123456789"]
    return {command.split()[2]: command for command in commands}


@pytest.fixture
def cron(tmp_path):
    """Run a command with the shell and the environment of cron."""
    job = tmp_path / "job"
    job.write_text(f"#!/bin/sh\necho ran >> {tmp_path}/ledger\n")
    job.chmod(0o755)
    environ = {
        "HOME": str(tmp_path),
        "LOGNAME": "ann",
        "SHELL": "/bin/sh",
        "PATH": f"{BIN}:/usr/bin:/bin",
        "LOCKKIT_URL": f"sqlite:{tmp_path}/locks.db",
        "LOCKKIT_CONFIG": "/dev/null",
    }

    def run(command):
        command = re.sub(r"/usr/local/bin/(sync-mirror|nightly-report)", str(job), command)
        return subprocess.run(
            ["/bin/sh", "-c", command],
            env=environ,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def client(tmp_path):
    with lockkit.connect(f"sqlite:{tmp_path}/locks.db") as client:
        yield client


def ledger(tmp_path):
    file = tmp_path / "ledger"
    return file.read_text().splitlines() if file.exists() else []


def test_a_run_while_the_last_one_works_is_left_out_with_one_line(lines, cron, client, tmp_path):
    with client.lock("sync").acquire():
        done = cron(lines["sync"])

    assert (done.returncode, done.stdout, ledger(tmp_path)) == (0, "", [])
    assert done.stderr.startswith("lockkit: 'sync' is busy: held by ")
    assert done.stderr.count("\n") == 1
    done = cron(lines["sync"])
    assert (done.returncode, done.stdout, done.stderr, ledger(tmp_path)) == (0, "", "", ["ran"])


def test_a_host_whose_clock_is_behind_does_not_run_the_job_again(lines, cron, tmp_path):
    first, second = cron(lines["nightly"]), cron(lines["nightly"])

    assert (first.returncode, second.returncode, ledger(tmp_path)) == (0, 0, ["ran"])


def test_without_another_exit_code_a_run_that_was_left_out_exits_75(lines, cron, client):
    with client.lock("sync").acquire():
        assert cron(lines["sync"].replace(" -E 0", "")).returncode == 75


def test_systemd_understands_the_units(pages, tmp_path):
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd is not installed")
    units = re.findall(
        r"^```\{code-block\} ini\n:caption: ([\w.-]+)\n(.*?)^```", pages[PAGE], re.MULTILINE | re.DOTALL
    )
    for name, text in units:
        (tmp_path / name).write_text(text.replace("/usr/local/bin/lockkit", f"{BIN}/lockkit"))

    done = subprocess.run(
        [program, "verify", *(str(tmp_path / name) for name, _ in units)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ,
    )

    assert [name for name, _ in units] == ["nightly-report.service", "nightly-report.timer"]
    assert (done.returncode, done.stderr) == (0, "")
