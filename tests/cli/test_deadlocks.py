"""``lockkit doctor --deadlocks``, with two programs that wait for each other."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys, lockkit
client = lockkit.connect()
with client.lock(sys.argv[1]).acquire():
    print("holds", flush=True)
    sys.stdin.readline()
    with client.lock(sys.argv[2]).acquire(timeout=60, on_wait=lambda _: print("waits", flush=True)):
        print("done", flush=True)
"""


@pytest.fixture
def crossed(lockkit):
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *names],
            env=lockkit.env,
            cwd=lockkit.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for names in (("red one", "blue"), ("blue", "red one"))
    ]
    assert [program.stdout.readline() for program in started] == ["holds\n"] * 2
    for program in started:
        program.stdin.write("go\n")
        program.stdin.flush()
    assert [program.stdout.readline() for program in started] == ["waits\n"] * 2
    yield started
    for program in started:
        program.kill()
        program.communicate()


def test_doctor_tells_a_deadlock_in_words_and_what_to_do(lockkit, crossed):
    assert "deadlock:" not in lockkit("doctor").stdout
    while (
        done := lockkit("doctor", "--deadlocks")
    ).returncode == 0:  # they tell what they hold after a second
        assert "ok: no deadlock found in namespace default" in done.stdout
    assert done.returncode == 2
    (row,) = [row for row in done.stdout.splitlines() if "deadlock:" in row]
    assert row.startswith("error: deadlock: ")
    for program, mine, other in zip(crossed, ("red one", "blue"), ("blue", "red one"), strict=True):
        assert f"pid {program.pid} (python) holds {mine!r} and waits for {other!r}" in row
    assert "evict one of the holders; see: lockkit explain blue" in row
    crossed[0].kill()
    while crossed[1].stdout.readline() == "waits\n":
        pass
    assert lockkit("doctor", "--deadlocks").returncode == 0
