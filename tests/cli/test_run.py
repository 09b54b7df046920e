"""``lockkit run``: the lock is held while the command runs, and not a moment less."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from support.holders import runs


def test_the_command_has_the_lock_the_streams_and_the_environment(lockkit):
    done = lockkit(
        "run",
        "x",
        "--",
        "sh",
        "-c",
        'cat; echo "$LOCKKIT_LEASE_NAME"; echo "$LOCKKIT_HELD"; echo oops >&2',
        input="in\n",
    )
    text, name, held = done.stdout.splitlines()
    assert (text, name, done.stderr) == ("in", "x", "oops\n")
    (entry,) = json.loads(held)
    assert entry["name"] == "x"
    assert (entry["kind"], entry["capacity"], entry["weight"]) == ("mutex", 1, 1)
    assert "token" not in entry


def test_the_claim_shows_the_command_and_never_its_arguments(lockkit):
    lockkit.holder("x")
    (claim,) = lockkit.claims("x")
    assert claim["owner"]["program"] == "sleep"
    assert "60" not in json.dumps(claim["owner"]["program"])


def test_the_token_is_in_the_environment_of_the_command_alone(lockkit):
    lockkit.start(
        "run", "x", "--", "sh", "-c", "echo $LOCKKIT_LEASE_TOKEN $LOCKKIT_LEASE_FENCE > env; sleep 60"
    )
    token, fence = lockkit.file("env").split()
    assert re.fullmatch("[0-9a-f]{32}", token)
    (claim,) = lockkit.claims("x")
    assert claim["fence"] == int(fence)
    assert token not in lockkit("status", "x", "--json").stdout + lockkit("explain", "x").stdout


def test_the_lock_is_free_when_the_command_has_ended(lockkit):
    lockkit("run", "x", "--", "true")
    assert lockkit.claims("x") == []


def test_waiting_says_who_is_in_the_way_and_where_one_stands(lockkit):
    lockkit.holder("backup")
    waiter = lockkit.start("run", "backup", "--", "true")
    lockkit.until(lambda: len(lockkit.claims("backup")) == 2)
    second = lockkit.start("run", "backup", "--", "true")
    lockkit.until(lambda: len(lockkit.claims("backup")) == 3)
    for process, place in ((second, "2nd"), (waiter, "1st")):
        err = ""
        while "waiting for" not in err:
            line = process.stderr.readline()
            assert line, err
            err += line
        process.send_signal(signal.SIGINT)
        err += process.stderr.read()
        process.wait(40)
        who = r"held by \S+@\S+ pid \d+ \(sleep\), (?:[\d.]+ s|just now)"
        assert re.search(rf"^waiting for 'backup': you are {place}; {who}$", err, re.MULTILINE), err
        assert re.search(r"^store: sqlite:.* \(from default\)$", err, re.MULTILINE)


def test_quiet_waits_in_silence(lockkit):
    lockkit.holder("x")
    assert lockkit("run", "x", "-q", "--timeout", "300ms", "--", "true").stderr.count("\n") == 1


def test_waiters_are_served_in_order(lockkit):
    first = lockkit.holder("x")
    waiters = []
    for number in range(4):
        waiters.append(lockkit.start("run", "x", "--", "sh", "-c", f"echo {number} >> order"))
        lockkit.until(lambda want=number + 2: len(lockkit.claims("x")) == want)
    first.send_signal(signal.SIGTERM)
    for waiter in waiters:
        assert waiter.wait(timeout=40) == 0
    assert (lockkit.folder / "order").read_text().split() == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    "command",
    [
        ["run", "x", "--timeout", "forever", "--", "true"],
        ["acquire", "x", "--ttl", "5s", "--timeout", "never"],
        ["wait", "x", "--timeout", "none"],
    ],
)
def test_a_configured_timeout_can_be_lifted(lockkit, command):
    holder = lockkit.holder("x")
    lockkit.env["LOCKKIT_CONFIG"] = str(lockkit.folder / "own.toml")
    (lockkit.folder / "own.toml").write_text('timeout = "100ms"')
    waiter = lockkit.start(*command)
    time.sleep(1.0)
    assert waiter.poll() is None, waiter.communicate()
    holder.send_signal(signal.SIGTERM)
    assert waiter.wait(timeout=40) == 0


def test_a_configured_max_hold_can_be_lifted(lockkit):
    (lockkit.folder / "lockkit.toml").write_text('max_hold = "1s"')
    assert lockkit("run", "x", "--max-hold", "never", "--", "sleep", "1.5").returncode == 0


@pytest.mark.parametrize("option", [["--ttl", "forever"], ["--min-hold", "never"], ["--timeout", "always"]])
def test_what_needs_a_duration_takes_no_other_word(lockkit, option):
    done = lockkit("run", "x", *option, "--", "true")
    assert done.returncode == 64
    assert "must be a duration" in done.stderr


def test_readers_share_and_a_writer_does_not(lockkit):
    lockkit.holder("x", "sleep", "--shared")
    assert lockkit("run", "x", "--shared", "--no-wait", "--", "true").returncode == 0
    assert lockkit("run", "x", "--exclusive", "--no-wait", "--", "true").returncode == 75


def test_a_semaphore_has_room_for_its_capacity(lockkit):
    lockkit.holder("x", "sleep", "--capacity", "3", "--permits", "2")
    assert lockkit("run", "x", "--capacity", "3", "--no-wait", "--", "true").returncode == 0
    assert (
        lockkit("run", "x", "--capacity", "3", "--permits", "2", "--no-wait", "--", "true").returncode == 75
    )


# -- the end of the wrapper


def test_kill_9_of_the_wrapper_kills_the_command_and_frees_the_lock_at_once(lockkit, job):
    wrapper = lockkit.start(
        "run", *job.words, "--ttl", "10m", "--", "sh", "-c", "echo $$ > pid; exec sleep 60"
    )
    pid = int(lockkit.file("pid"))
    waiter = lockkit.start("run", *job.words, "--", "true")
    lockkit.until(lambda: len(lockkit.claims(job.queue)) == 2)
    wrapper.kill()
    assert waiter.wait(timeout=40) == 0  # the ttl is longer
    assert not runs(pid)


CLOSES = """
import subprocess, sys
with subprocess.Popen(["sleep", "60"]) as child:
    print(child.pid, file=open("pid", "w"), flush=True)
"""


@pytest.mark.parametrize(
    "command",
    [("sh", "-c", "sleep 60 & echo $! > pid; wait"), (sys.executable, "-c", CLOSES)],
    ids=["keeps the descriptor", "closes it"],
)
def test_after_kill_9_of_the_wrapper_the_lock_is_free_once_what_the_command_started_is_dead(
    lockkit, job, command
):
    wrapper = lockkit.start("run", *job.words, "--", *command)
    state = f"cut -d ' ' -f 3 /proc/{lockkit.file('pid')}/stat 2>/dev/null || echo Z"
    waiter = lockkit.start("run", *job.words, "--timeout", "40s", "--", "sh", "-c", state)
    lockkit.until(lambda: len(lockkit.claims(job.queue)) == 2)
    wrapper.kill()
    assert waiter.communicate(timeout=60)[0] in ("Z\n", "X\n")


def test_kill_9_of_the_wrapper_frees_nothing_while_a_daemon_lives(lockkit, alive, job):
    script = "setsid sh -c 'echo $$ > left; exec sleep 60' & echo $$ > pid; wait"
    wrapper = lockkit.start("run", *job.words, "--", "sh", "-c", script)
    child, grandchild = int(lockkit.file("pid")), int(lockkit.file("left"))
    try:
        wrapper.kill()
        wrapper.wait()
        lockkit.until(lambda: not alive(child))
        assert alive(grandchild)
        assert lockkit("run", *job.words, "--no-wait", "--", "true").returncode == 75
        assert lockkit("run", *job.words, "--timeout", "1s", "--", "true").returncode == 124
    finally:
        os.kill(grandchild, signal.SIGKILL)
    assert lockkit("run", *job.words, "--timeout", "30s", "--", "true").returncode == 0


def test_a_command_whose_wrapper_is_stopped_keeps_its_lock(lockkit, job):
    wrapper = lockkit.start("run", *job.words, "--ttl", "1s", "--", "sh", "-c", "echo > started; sleep 60")
    lockkit.until((lockkit.folder / "started").exists)
    wrapper.send_signal(signal.SIGSTOP)
    time.sleep(2.5)
    assert lockkit("run", *job.words, "--no-wait", "--", "true").returncode == 75
    wrapper.send_signal(signal.SIGCONT)
    time.sleep(0.5)
    assert wrapper.poll() is None
    wrapper.send_signal(signal.SIGTERM)
    assert wrapper.wait(timeout=40) == 143


# -- signals


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1]
)
def test_signals_are_passed_on(lockkit, number, job):
    wrapper = lockkit.holding(job)
    wrapper.send_signal(number)
    assert wrapper.wait(timeout=40) == 128 + number
    assert lockkit.claims(job.queue) == []


def test_a_command_that_handles_a_signal_decides_on_the_exit_code(lockkit, job):
    wrapper = lockkit.start(
        "run", *job.words, "--", "sh", "-c", "trap 'exit 5' TERM; echo > ready; while :; do sleep 0.05; done"
    )
    lockkit.until((lockkit.folder / "ready").exists)
    wrapper.send_signal(signal.SIGTERM)
    assert wrapper.wait(timeout=40) == 5


def test_an_ignored_signal_stays_ignored(lockkit):
    line = " ".join(lockkit.line("run", "x", "--", "sh", "-c", "'kill -HUP $$; exit 3'"))
    wrapper = lockkit.start("run", "outer", "--", "sh", "-c", f"trap '' HUP; {line}; echo $? > code")
    assert wrapper.wait(timeout=40) == 0
    assert lockkit.file("code") == "3"


def test_a_command_starts_with_default_signals_and_no_stray_descriptors(lockkit):
    script = "grep -E '^Sig(Ign|Blk)' /proc/self/status; ls -l /proc/self/fd"
    out = lockkit("run", "x", "--", "sh", "-c", script).stdout
    assert re.findall(r"Sig(?:Ign|Blk):\s+(\w+)", out) == ["0" * 16, "0" * 16]
    strangers = [
        line for line in out.splitlines() if "->" in line and int(re.search(r" (\d+) ->", line)[1]) > 2
    ]
    assert all(".pulses/" in line or "/proc/" in line for line in strangers), strangers


# -- loss


def test_eviction_ends_the_command_and_exits_76(lockkit):
    wrapper = lockkit.holder("x", "sleep", "--ttl", "3s", "--report", "report")
    (claim,) = lockkit.claims("x")
    lockkit("evict", "x", "--claim", claim["claim_id"], "--reason", "hung since noon")
    _, err = wrapper.communicate(timeout=40)
    assert wrapper.returncode == 76, err
    assert "was lost" in err.splitlines()[-1]
    for row in (err.splitlines()[-1], next(row for row in err.splitlines() if "ending the command" in row)):
        assert re.search(r"evicted by \S+@\S+ .*: hung since noon", row), err
    report = json.loads((lockkit.folder / "report").read_text())
    assert (report["exit_code"], report["command_signal"]) == (76, signal.SIGTERM)
    assert report["evicted"]["reason"] == "hung since noon"
    assert "@" in report["evicted"]["by"]


@pytest.mark.parametrize("ttl", ["3s", "60s"], ids=["before its end", "at its end"])
def test_a_claim_that_is_gone_is_told_in_words(lockkit, ttl):
    command = "touch runs; until [ -e end ]; do sleep 0.05; done"
    wrapper = lockkit.start("run", "x", "--ttl", ttl, "--report", "report", "--", "sh", "-c", command)
    lockkit.until((lockkit.folder / "runs").exists)
    (claim,) = lockkit.claims("x")
    lockkit("evict", "x", "--claim", claim["claim_id"], "--reason", "test", "--now")
    if ttl == "60s":
        (lockkit.folder / "end").touch()
    _, err = wrapper.communicate(timeout=40)
    report = json.loads((lockkit.folder / "report").read_text())
    assert (wrapper.returncode, report["exit_code"]) == (76, 76)
    assert "its claim was gone from the store" in report["lost"]
    assert report["lost"] in err.splitlines()[-1]
    assert report["evicted"] is None


def test_an_evicted_command_that_ignores_term_is_dead_before_the_next_grant(lockkit, alive, job):
    stubborn = "trap '' TERM; echo $$ > pid; while :; do sleep 0.05; done"
    wrapper = lockkit.start("run", *job.words, "--ttl", "3s", "--", "sh", "-c", stubborn)
    pid = int(lockkit.file("pid"))
    (claim,) = lockkit.claims(job.queue)
    lockkit("evict", job.queue, "--claim", claim["claim_id"], "--reason", "test")
    done = lockkit(
        "run",
        *job.words,
        "--timeout",
        "30s",
        "--",
        "sh",
        "-c",
        f"kill -0 {pid} 2>/dev/null && echo alive || echo dead",
    )
    assert done.stdout == "dead\n"
    assert wrapper.wait(timeout=40) == 76


def test_max_hold_ends_a_forgotten_command_in_time(lockkit):
    stubborn = "trap '' TERM; while :; do date +%s.%N; sleep 0.05; done"
    done = lockkit("run", "x", "--max-hold", "2s", "--", "sh", "-c", stubborn)
    assert done.returncode == 76
    first, *_, latest = map(float, done.stdout.split())
    assert latest - first < 5  # and not the 60 s of the wait for its end
    told = r"lockkit: max_hold \(2 s\) is nearly over: TERM now, KILL in [\d.]+ s if the command still runs\n"
    killing = r"lockkit: killed the command before its lock goes to the next in the queue\n"
    last = r"lockkit: the command under 'x' was ended: max_hold \(2 s\) is nearly over"
    assert re.search(f"^{told}{killing}(.*\n)*{last}", done.stderr, re.MULTILINE), done.stderr


def test_on_lost_warn_lets_the_command_go_on(lockkit):
    done = lockkit(
        "run", "x", "--max-hold", "1s", "--on-lost", "warn", "--", "sh", "-c", "sleep 2; echo finished"
    )
    assert (done.returncode, done.stdout) == (76, "finished\n")


# -- nesting


def test_a_nested_run_of_a_held_name_is_refused_with_a_hint(lockkit):
    inner = " ".join(lockkit.line("run", "x", "--", "echo", "inner"))
    done = lockkit("run", "x", "--", "sh", "-c", inner)
    assert done.returncode == 75
    assert "--nested reuse" in done.stderr


def test_a_nested_run_may_reuse_the_hold(lockkit):
    inner = " ".join(lockkit.line("run", "x", "--nested", "reuse", "--", "sh", "-c", "'echo inner; exit 4'"))
    done = lockkit("run", "x", "--", "sh", "-c", inner)
    assert (done.returncode, done.stdout) == (4, "inner\n")


@pytest.mark.parametrize(
    "outer, inner, covered",
    [
        ("--shared", "--exclusive", False),
        ("--shared", "", False),
        ("--capacity 2", "", False),
        ("--capacity 2", "--exclusive", False),
        ("--capacity 2", "--capacity 3", False),
        ("--capacity 2", "--capacity 2 --permits 2", False),
        ("", "--shared", False),
        ("--shared", "--shared", True),
        ("--exclusive", "--shared", True),
        ("--capacity 3 --permits 2", "--capacity 3", True),
    ],
)
def test_a_hold_is_reused_only_for_what_it_covers(lockkit, outer, inner, covered):
    line = lockkit.line("run", "x", "--nested", "reuse", *inner.split(), "--", "echo", "inner")
    done = lockkit("run", "x", *outer.split(), "--", *line)
    assert (done.returncode, done.stdout) == ((0, "inner\n") if covered else (75, ""))
    assert ("give the outer one the same options" in done.stderr) is not covered


@pytest.mark.parametrize("how, code", [("refuse", 75), ("reuse", 0)])
def test_a_nested_run_that_knows_the_store_by_another_name_is_one(lockkit, how, code):
    """A host and its address, a server's socket and its port: the store's answer counts, not its name."""
    inner = " ".join(lockkit.line("run", "x", "--timeout", "30s", "--nested", how, "--", "true"))
    renamed = 'LOCKKIT_HELD=$(echo $LOCKKIT_HELD | sed \'s/"store": "[^"]*/&another/\') '
    done = lockkit("run", "x", "--", "sh", "-c", renamed + inner)
    assert done.returncode == code


def test_a_nested_run_that_outlives_the_hold_that_it_uses_exits_as_one_that_lost_its_lock(lockkit, tmp_path):
    begun, go, told = tmp_path / "begun", tmp_path / "go", tmp_path / "told"
    for pipe in begun, go:
        os.mkfifo(pipe)
    inner = lockkit.line("run", "x", "--nested", "reuse", "--", "sh", "-c", f"'echo >{begun}; cat {go}'")
    line = f"({' '.join(inner)}; echo $?) >{told} 2>&1 </dev/null & cat {begun}"
    assert lockkit("run", "x", "--", "sh", "-c", line).returncode == 0
    assert lockkit("run", "x", "--", "true").returncode == 0  # the inner command works on, without the lock
    go.write_text("works\n", encoding="utf-8")
    lockkit.until(lambda: told.read_text(encoding="utf-8").endswith("76\n"))
    assert "held 'x' no longer when the command ended" in told.read_text(encoding="utf-8")


def test_a_nested_run_of_another_name_is_nothing_special(lockkit):
    inner = " ".join(lockkit.line("run", "y", "--", "sh", "-c", "'echo $LOCKKIT_HELD'"))
    done = lockkit("run", "x", "--", "sh", "-c", inner)
    assert [entry["name"] for entry in json.loads(done.stdout)] == ["x", "y"]


def test_what_was_held_once_does_not_forbid_anything(lockkit):
    held = lockkit("run", "x", "--", "sh", "-c", "echo $LOCKKIT_HELD").stdout.strip()
    assert lockkit("run", "x", "--", "true", env={"LOCKKIT_HELD": held}).returncode == 0
    assert lockkit("run", "x", "--", "true", env={"LOCKKIT_HELD": "{nonsense"}).returncode == 0


def test_a_program_that_takes_the_lock_of_the_run_around_it_is_told_so_at_once(lockkit, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import lockkit\n"
        "with lockkit.connect() as client:\n"
        "    for timeout in 0, 0.3:\n"
        "        try:\n"
        "            client.lock('x').acquire(timeout=timeout)\n"
        "        except lockkit.AcquireTimeout as error:\n"
        "            print(error)\n",
        encoding="utf-8",
    )
    done = lockkit("run", "x", "--", sys.executable, str(program))
    around = ", the lockkit run or task around this program, "
    assert [around in line for line in done.stdout.splitlines()] == [True, True]
    [told] = [line for line in done.stderr.splitlines() if line.startswith("still waiting for 'x' after 0")]
    assert around in told


# -- the report


def test_the_report_tells_of_a_busy_lock_too(lockkit):
    lockkit.holder("x")
    lockkit("run", "x", "--no-wait", "--report", "report", "--", "true")
    report = json.loads((lockkit.folder / "report").read_text())
    assert (report["exit_code"], report["error"]["error"], report["fence"]) == (75, "busy", None)
    assert [path.name for path in lockkit.folder.glob("report*")] == ["report"]


def test_a_report_that_cannot_be_written_is_an_error_before_anything_runs(lockkit):
    done = lockkit("run", "x", "--report", "no/such/folder/report", "--", "touch", "ran")
    assert done.returncode == 64
    assert done.stderr.count("cannot write the report") == 1
    assert not (lockkit.folder / "ran").exists()


def test_nothing_is_left_behind(lockkit):
    lockkit("run", "x", "--", "true")
    lockkit("run", "x", "--", "sh", "-c", "kill -9 $$")
    fifos = [path for path in Path(lockkit.folder, "state").rglob("*") if path.is_fifo()]
    assert fifos == []
