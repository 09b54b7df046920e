"""One at a time in a cluster: a restarted command under `run`, a leader, and a nightly job by min_hold."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from lockkit.testing.processes import until
from support.holders import runs

ROOT = Path(__file__).parents[2]
PATIENCE = 40
ALWAYS = """
trap 'stop=1; kill -TERM $run' TERM
while [ -z "$stop" ]; do
    "$@" & run=$!
    wait $run; wait $run
    echo "restart $?"
done
"""
"""The container of a pod with restartPolicy: Always."""
JOB = """
import sys, time, lockkit

client = lockkit.connect()

@client.locked("nightly", timeout=0, on_busy="skip"{terms})
def nightly():
    time.sleep(0.01)
    return "done"

print("ready", flush=True)
sys.stdin.readline()
time.sleep(float(sys.argv[1]))
told = nightly()
print("skipped" if isinstance(told, lockkit.Skipped) else told)
"""


@pytest.fixture
def pod(started, lockkit_line, client, tmp_path):
    """A pod with `lockkit run beat -- CMD` as its container; CMD writes the pid of each start to a file."""

    def start(name):
        script = f"echo $$ >> {name}; exec sleep 60"
        process = started(
            "sh",
            "-c",
            ALWAYS,
            "pod",
            *lockkit_line,
            "run",
            "beat",
            "--ttl",
            "2s",
            "--",
            "sh",
            "-c",
            script,
            env={"POD_NAME": name},
        )
        process.starts = lambda: (
            [int(pid) for pid in (tmp_path / name).read_text().split()] if (tmp_path / name).exists() else []
        )
        process.run = lambda: next(
            (one.owner.pid for one in client.inspect("beat").claims if one.owner.pod == name), None
        )
        return process

    return start


def test_the_second_pod_takes_over_when_the_first_is_ended_and_when_it_is_killed(pod, client):
    first = pod("beat-a")
    until(first.starts, seconds=PATIENCE)
    second = pod("beat-b")
    until(lambda: client.inspect("beat").waiters, seconds=PATIENCE)
    assert second.starts() == []

    first_run = first.run()
    os.kill(first_run, signal.SIGTERM)  # the container ends, and is started again
    until(second.starts, seconds=PATIENCE)
    assert not runs(first.starts()[0])
    until(lambda: client.inspect("beat").waiters and first.run() not in (None, first_run), seconds=PATIENCE)
    assert len(first.starts()) == 1  # it waits, at the end of the queue

    os.kill(second.run(), signal.SIGKILL)
    until(lambda: len(first.starts()) == 2, seconds=PATIENCE)
    assert not runs(second.starts()[0])
    for one in (first, second):
        one.terminate()
        one.wait(PATIENCE)


def test_one_leads_and_the_next_takes_over_when_it_is_ended(started, client):
    program = [sys.executable, str(ROOT / "docs/examples/fleet/leader.py"), "leader"]
    first = started(*program)
    fence = first.stdout.readline()
    second = started(*program)
    until(lambda: client.inspect("leader").waiters, seconds=PATIENCE)

    first.terminate()

    assert second.stdout.readline().startswith("leading with fence ")
    assert fence.startswith("leading with fence ")
    assert first.wait(PATIENCE) == 0
    assert first.stderr.read() == ""
    second.terminate()
    assert second.wait(PATIENCE) == 0


@pytest.mark.parametrize(
    "terms, told",
    [(", min_hold=600", ["done", "skipped"]), ("", ["done", "done"])],
    ids=["min_hold", "without"],
)
def test_of_two_schedulers_50_ms_apart_one_runs_a_job_of_10_ms(started, client, terms, told):
    """Without min_hold the second one comes when the first is long done (or earlier, on a slow machine)."""
    schedulers = [started(sys.executable, "-c", JOB.format(terms=terms), str(late)) for late in (0.0, 0.05)]
    assert [one.stdout.readline() for one in schedulers] == ["ready\n"] * 2

    for one in schedulers:
        one.stdin.write("02:30\n")
        one.stdin.flush()
        if not terms:
            assert one.wait(PATIENCE) == 0  # whatever the machine does, one after the other

    assert sorted(one.communicate(timeout=PATIENCE)[0].strip() for one in schedulers) == told
    assert [one.returncode for one in schedulers] == [0, 0]
    assert bool(client.inspect("nightly").claims) == bool(terms)


def test_two_jobs_of_a_cronjob_end_well_and_one_of_them_has_run(started, lockkit_line, tmp_path):
    words = (
        "run",
        "nightly",
        "--no-wait",
        "-E",
        "0",
        "--min-hold",
        "30m",
        "--",
        "sh",
        "-c",
        "echo ran >> log; sleep 0.01",
    )
    jobs = [started(*lockkit_line, *words) for _ in range(2)]

    assert [job.wait(PATIENCE) for job in jobs] == [0, 0]
    assert (tmp_path / "log").read_text() == "ran\n"
