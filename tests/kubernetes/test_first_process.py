"""The first process of a container: it reaps leftovers, and ends on SIGTERM, without the kernel's help."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from lockkit.cli.adopted import Adopted
from lockkit.lib.descent import children
from lockkit.testing.processes import until
from lockkit.values.identity import look_at
from support.holders import AT_ONCE, HOLD

BOX = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
PATIENCE = 40
"""Seconds for what a machine that does much else takes a second for."""


def can():
    try:
        return subprocess.run([*BOX, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


boxed = pytest.mark.skipif(not can(), reason="may not make a pid namespace: unshare --pid --mount-proc")


def first_process(box):
    """The pid, as it is outside, of the process that has pid 1 inside."""
    (inside,) = children(box.pid)
    return inside


LEAVE = """
for n in 1 2 3; do (setsid sleep 0.01 & sleep 0.01 &); done
sleep 0.5
i=0
while grep -qs 'State:.Z' /proc/[0-9]*/status; do
    i=$((i+1)); [ $i -lt 600 ] || { echo zombies; exit 1; }
    sleep 0.05
done
echo none
"""


@boxed
def test_run_collects_what_its_command_leaves_behind(started, lockkit_line):
    box = started(*BOX, *lockkit_line, "run", "beat", "--", "sh", "-c", LEAVE)

    out, err = box.communicate(timeout=2 * PATIENCE)

    assert (out, box.returncode) == ("none\n", 0), err


@boxed
def test_run_passes_sigterm_on_and_releases(started, lockkit_line, client):
    script = 'trap "exit 7" TERM; echo up; while :; do sleep 0.05; done'
    box = started(*BOX, *lockkit_line, "run", "beat", "--", "sh", "-c", script)
    assert box.stdout.readline() == "up\n"

    os.kill(first_process(box), signal.SIGTERM)

    assert box.wait(PATIENCE) == 7
    assert client.inspect("beat").claims == ()


@boxed
def test_run_that_still_waits_ends_on_sigterm_and_leaves_the_queue(started, lockkit_line, client):
    with client.lock("beat").acquire():
        box = started(*BOX, *lockkit_line, "run", "beat", "--", "true")
        until(lambda: client.inspect("beat").waiters, seconds=PATIENCE)

        os.kill(first_process(box), signal.SIGTERM)

        assert box.wait(PATIENCE) == 128 + signal.SIGTERM
        assert client.inspect("beat").waiters == ()


@boxed
@pytest.mark.parametrize("pid_1", [True, False], ids=["as pid 1", "elsewhere"])
def test_a_script_with_on_sigterm_releases_and_ends(started, url, client, pid_1):
    script = HOLD.format(url=url, terms=", ttl=60", connect=', on_sigterm="release"')
    box = started(*(BOX if pid_1 else ()), sys.executable, "-c", script)
    assert box.stdout.readline() != "", box.stderr.read()

    os.kill(first_process(box) if pid_1 else box.pid, signal.SIGTERM)

    client.lock("job").acquire(timeout=AT_ONCE).release()
    assert box.wait(PATIENCE) == (128 + signal.SIGTERM if pid_1 else -signal.SIGTERM)


def ended(pid):
    process = look_at(pid)
    return process is not None and process.ended


@pytest.mark.parametrize("session", [True, False], ids=["of the command", "of a plugin"])
def test_only_what_no_plugin_waits_for_is_collected_and_only_after_a_while(session):
    with subprocess.Popen(["true"], start_new_session=session) as left, subprocess.Popen(["true"]) as command:
        until(lambda: ended(left.pid) and ended(command.pid), seconds=PATIENCE)
        adopted = Adopted(command.pid)
        assert adopted.collect(100.0) == (1.0 if session else float("inf"))
        assert ended(left.pid)

        assert adopted.collect(100.4) == pytest.approx(0.6)
        assert ended(left.pid)
        adopted.collect(101.0)
        assert ended(left.pid) is not session
        assert ended(command.pid)
