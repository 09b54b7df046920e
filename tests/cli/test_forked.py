"""Most tests of this folder run the command line in forked processes: as its users', but faster to start."""

from __future__ import annotations

import os
import subprocess

import pytest

from support.forked import alike


def test_a_command_has_a_folder_an_environment_streams_and_an_end_of_its_own(lockkit):
    script = "pwd; echo $GIVEN; cat; echo no >&2; exit 3"
    done = lockkit("run", "x", "--", "sh", "-c", script, env={"GIVEN": "this"}, input="sent")

    assert done.returncode == 3, done.stderr
    assert done.stdout == f"{lockkit.folder}\nthis\nsent"
    assert done.stderr == "no\n"
    assert done.args[-1] == script


def test_two_commands_share_nothing(lockkit):
    assert lockkit("acquire", "x", "--ttl", "1m").returncode == 0
    assert lockkit("run", "x", "--timeout", "0", "--", "true").returncode != 0
    assert lockkit("release", "x").returncode == 0
    assert lockkit("run", "x", "--timeout", "0", "--", "true").returncode == 0


def test_one_that_takes_too_long_is_killed(lockkit):
    with pytest.raises(subprocess.TimeoutExpired):
        lockkit("run", "x", "--", "sleep", "60", timeout=2)
    lockkit.until(lambda: not lockkit.claims("x"))


@pytest.mark.parametrize("name", ["PYTHONWARNINGS", "LC_ALL", "TZ"])
def test_what_python_reads_when_it_starts_needs_a_new_one(name):
    assert alike({**os.environ})
    assert alike({**os.environ, "LOCKKIT_URL": "memory:"})
    assert not alike({**os.environ, name: "C"})
