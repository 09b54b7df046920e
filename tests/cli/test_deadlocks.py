"""``lockkit doctor --deadlocks``, with two programs that wait for each other, on one host or two."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from support.programs import programs

PROGRAM = """
import socket, sys, lockkit
if sys.argv[3:]:
    socket.sethostname(sys.argv[3])
client = lockkit.connect()
with client.lock(sys.argv[1]).acquire():
    print("holds", flush=True)
    sys.stdin.readline()
    with client.lock(sys.argv[2]).acquire(timeout=60, on_wait=lambda _: print("waits", flush=True)):
        print("done", flush=True)
"""


@pytest.fixture
def crossing(lockkit):
    """Start two programs that hold a lock each and wait for the other's; with words before and behind."""
    with programs(env=lockkit.env, cwd=lockkit.folder, stdin=subprocess.PIPE) as start:

        def cross(before=(), behind=((), ())):
            both = zip((("red one", "blue"), ("blue", "red one")), behind, strict=True)
            started = [start(*before, sys.executable, "-c", PROGRAM, *names, *more) for names, more in both]
            assert [program.stdout.readline() for program in started] == ["holds\n"] * 2
            for program in started:
                program.stdin.write("go\n")
                program.stdin.flush()
            assert [program.stdout.readline() for program in started] == ["waits\n"] * 2
            return started

        yield cross


@pytest.fixture
def crossed(crossing):
    return crossing()


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


@pytest.mark.skipif(os.geteuid() != 0, reason="a host name of one's own takes root")
def test_a_deadlock_of_two_hosts_is_found_from_a_third(lockkit, servers, crossing):
    alone = ["unshare", "--uts"]
    if subprocess.run([*alone, "true"], check=False).returncode != 0:
        pytest.skip("no host name of one's own can be had here")
    lockkit.env.update(LOCKKIT_URL=servers("redis"), LOCKKIT_NAMESPACE="two-hosts")
    programs = crossing(alone, [["north"], ["south"]])
    while (done := lockkit("doctor", "--deadlocks")).returncode != 2:
        assert "ok: no deadlock found in namespace two-hosts" in done.stdout
    (row,) = [row for row in done.stdout.splitlines() if "deadlock:" in row]
    for program, host in zip(programs, ("north", "south"), strict=True):
        assert f"@{host} pid {program.pid} (python) holds" in row
