"""The supervisor when a lease stops renewing, with real processes and a clock that it alone sees faster."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import lockkit
from lockkit.cli.child import _PR_SET_PDEATHSIG, _prctl, find, spawn
from lockkit.cli.exits import CommandFailed, code_of
from lockkit.cli.guarding import _policy
from lockkit.cli.run_request import Request
from lockkit.cli.signals import Signals
from lockkit.cli.supervise import Supervisor
from lockkit.cli.terminal import Terminal
from lockkit.cli.watchdog import _COMMAND, _STARTED, Policy, Watchdog
from lockkit.lib.clock import SYSTEM
from lockkit.lib.descent import children
from lockkit.testing.processes import until
from lockkit.values.identity import look_at


class Silent:
    """A lease that nobody renews any more.

    Args:
        seconds: The time until its deadline.
        slow: The length of these seconds: with a margin of slow seconds, a stall of the machine is short.
    """

    claim_id = "none"

    def __init__(self, seconds: float, slow: float = 1.0) -> None:
        self.lost = threading.Event()
        self.slow = slow
        self.end = self.now() + seconds

    def now(self) -> float:
        return SYSTEM.now() / self.slow

    def time_to_stop(self) -> float:
        return max(self.end - self.now(), 0.0)


def death_signal() -> int:
    """The death signal of this process, as the kernel has it."""
    found = ctypes.c_int()
    assert ctypes.CDLL(None).prctl(2, ctypes.byref(found), 0, 0, 0) == 0
    return found.value


@pytest.mark.skipif(sys.platform != "linux", reason="prctl(2) is Linux's")
@pytest.mark.parametrize("missing", [(), ("_ctypes",)], ids=["CPython", "another Python"])
def test_the_death_signal_can_be_set_with_and_without_the_names_that_ctypes_hides(missing, monkeypatch):
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    prctl = _prctl()
    assert prctl(_PR_SET_PDEATHSIG, 1000, 0, 0, 0) == -1  # there is no such signal
    assert prctl(_PR_SET_PDEATHSIG, signal.SIGUSR1, 0, 0, 0) == 0
    assert death_signal() == signal.SIGUSR1
    assert prctl(_PR_SET_PDEATHSIG, 0, 0, 0, 0) == 0


@pytest.fixture
def supervise():
    terminal = Terminal()

    def run(script: str, lease: Silent | None, policy: Policy, told=lambda: None, **options):
        said: list[str] = []
        claim_id = f"claim{os.getpid()}"
        with Signals() as signals:
            signals.record()
            environ = {**os.environ, "LOCKKIT_HELD": json.dumps([{"claim_id": claim_id}])}
            child = spawn(
                find("sh", environ),
                ["sh", "-c", script],
                environ,
                terminal=terminal,
                handled=signals.handled(),
                claims=[claim_id],
            )
            ended = Supervisor(
                child,
                signals,
                terminal,
                lease,
                policy,
                tell=lambda sentence: (said.append(sentence), told()),
                now=SYSTEM.now if lease is None else lease.now,
                **options,
            ).run()
        return ended, said

    run.terminal = terminal
    yield run
    terminal.close()


def test_a_silent_lease_ends_the_command_with_term_first(supervise):
    lease = Silent(30.0)
    ended, _ = supervise("sleep 60", lease, Policy(kill_after=29.0))
    assert (ended.signal, bool(ended.lost)) == (signal.SIGTERM, True)
    assert 1.0 < lease.time_to_stop() <= 29.0


def test_a_stubborn_command_is_dead_before_the_deadline(supervise):
    lease = Silent(1.5, slow=4)
    ended, said = supervise("trap '' TERM; while :; do sleep 0.05; done", lease, Policy(kill_after=1.0))
    assert ended.signal == signal.SIGKILL
    assert lease.time_to_stop() > 0
    assert len(said) == 2


@pytest.mark.parametrize("script", ["sleep 60", "trap '' TERM; while :; do sleep 0.05; done"])
def test_without_time_between_term_and_kill_the_command_is_dead_before_the_deadline(supervise, script):
    lease = Silent(1.5, slow=8)
    ended, _ = supervise(script, lease, Policy(kill_after=0.0))
    assert ended.lost
    assert lease.time_to_stop() > 0


def test_on_lost_kill_sends_no_term(supervise, tmp_path):
    lease = Silent(0.8)
    script = f"trap 'echo term > {tmp_path}/term' TERM; while :; do sleep 0.05; done"
    ended, _ = supervise(script, lease, Policy(on_lost="kill"))
    assert ended.signal == signal.SIGKILL
    assert not (tmp_path / "term").exists()


def test_what_the_command_left_in_its_group_dies_with_it(supervise, tmp_path, alive):
    script = f"(trap '' TERM; sleep 30) & echo $! > {tmp_path}/pid; wait"
    ended, _ = supervise(script, Silent(4.0), Policy(kill_after=1.0))
    assert ended.lost
    pid = int((tmp_path / "pid").read_text())
    until(lambda: not alive(pid), "it is dead, too", 20.0)


THROUGH = pytest.mark.parametrize(
    "group, through", [("own", ""), ("own", "timeout 60"), ("that of a pipeline", "")]
)


def program(folder, through):
    """A script that leaves its program behind when TERM ends it; the program writes its pid."""
    return (
        f'{through} sh -c \'trap "" TERM; echo $$ > {folder}/new; mv {folder}/new {folder}/pid; '
        "sleep 60; true'; true"
    )


@THROUGH
def test_what_the_command_left_outside_its_group_dies_with_it(supervise, tmp_path, alive, group, through):
    """The lock goes to the next once the command has ended; a script's programs would work beside it."""
    supervise.terminal.own_group = group == "own"
    lease = Silent(60.0)
    policy = Policy(kill_after=59.0)
    begun = threading.Thread(
        target=lambda: (until((tmp_path / "pid").exists, "it has begun", 30.0), lease.lost.set())
    )
    begun.start()
    ended, _ = supervise(program(tmp_path, through), lease, policy)
    begun.join()
    assert ended.lost
    pid = int((tmp_path / "pid").read_text())
    until(lambda: not alive(pid), "it is dead, too", 20.0)


@THROUGH
def test_nothing_of_a_command_lives_on_whose_supervision_fails(supervise, tmp_path, alive, group, through):
    """The lock is released next."""
    supervise.terminal.own_group = group == "own"

    def fails():
        until((tmp_path / "pid").exists, "it has begun", 30.0)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        supervise(
            program(tmp_path, through), Silent(0.0), Policy(on_lost="warn", silence_ends=False), sees=fails
        )
    assert not alive(int((tmp_path / "pid").read_text()))


INHERITS = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (2048, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
for _ in range(1100):
    os.set_inheritable(os.open(os.devnull, os.O_RDONLY), True)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_a_run_that_inherits_a_thousand_descriptors_supervises_its_command(lockkit):
    run = lockkit.line("run", "x", "--", "sh", "-c", "sleep 0.5; exit 3")
    done = lockkit.run([sys.executable, "-c", INHERITS, *run])
    assert (done.returncode, done.stderr) == (3, "")


def test_a_process_bound_lease_may_be_silent(supervise):
    ended, said = supervise("sleep 1; exit 6", Silent(0.2), Policy(silence_ends=False))
    assert (ended.exit_code, ended.lost, said) == (6, None, [])


def test_a_stopped_command_hears_that_its_lock_is_lost(supervise):
    lease = Silent(30.0)
    ended, _ = supervise("kill -STOP $$; sleep 60", lease, Policy(kill_after=29.0))
    assert ended.signal == signal.SIGTERM


def test_without_a_lease_the_command_just_runs(supervise):
    ended, _ = supervise("exit 9", None, Policy())
    assert (ended.exit_code, ended.lost) == (9, None)


def test_at_the_second_sigint_that_a_command_survives_another_way_to_end_it_is_told_once(supervise, tmp_path):
    told = tmp_path / "told"
    script = (
        f"trap '' INT; echo $$ > {tmp_path}/pid; "
        f"until [ -e {told} ]; do kill -INT $PPID; sleep 0.05; done; exit 7"
    )
    ended, said = supervise(script, None, Policy(), told.touch)
    assert (ended.code, len(said)) == (7, 1)
    assert f"kill -9 {(tmp_path / 'pid').read_text().strip()}" in said[0]


def test_a_command_that_ends_at_its_first_sigint_is_told_no_other_way(supervise):
    ended, said = supervise(
        "trap 'exit 3' INT; kill -INT $PPID; while :; do sleep 0.05; done", None, Policy()
    )
    assert (ended.code, said) == (3, [])


def test_the_store_stays_open_while_the_command_is_started(supervise, tmp_path):
    """Break it by forking without ``executing()``: the last connection that is closed removes the log."""
    with lockkit.connect(f"sqlite:///{tmp_path}/locks.db") as client, client.lock("a").acquire() as lease:
        with (tmp_path / "locks.db-wal").open("rb") as log:
            ended, _ = supervise("true", None, Policy())
            assert (ended.code, os.fstat(log.fileno()).st_nlink) == (0, 1)
        lease.confirm()


# -- the watchdog


class Renewed(Silent):
    """A lease whose deadline can be moved."""

    ttl = 60.0

    def follow(self, call):
        self.moves = call
        call(self.end)


def watched(lease, policy, child_of, **options):
    """A watchdog and a command, without anybody who supervises the command."""
    terminal = Terminal()
    with Watchdog([lease], policy, group=terminal.own_group, now=lease.now, **options) as watchdog:
        words = ["sh", "-c", child_of]
        child = spawn(find("sh", os.environ), words, os.environ, terminal=terminal, begins=watchdog.begins)
        try:
            yield watchdog, child
        finally:
            child.kill()
            watchdog.end()
            os.waitpid(child.pid, 0)
            terminal.close()


def ended(child):
    return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)


@pytest.fixture
def watch(request):
    opened = []

    def begin(lease, policy, script="sleep 60"):
        opened.append(watched(lease, policy, script))
        return next(opened[-1])

    yield begin
    for each in opened:
        each.close()


def test_a_watchdog_kills_a_command_that_nobody_else_ends_before_the_deadline(watch):
    lease = Renewed(2.0, slow=2)
    watchdog, child = watch(lease, Policy(kill_after=1.0))
    until(lambda: ended(child), "the command has ended", 30.0)
    assert ended(child).si_status == signal.SIGKILL
    assert watchdog.acted().killed
    assert watchdog.acted().in_time
    assert not watchdog.acted().stopped


def test_a_watchdog_kills_before_the_deadline_without_time_between_term_and_kill(watch):
    lease = Renewed(1.5, slow=8)
    watchdog, child = watch(lease, Policy(kill_after=0.0))
    until(lambda: ended(child), "the command has ended", 60.0)
    assert lease.time_to_stop() > 0
    assert watchdog.acted().in_time


def test_a_watchdog_kills_what_the_command_started_in_other_sessions(watch, tmp_path, alive):
    script = f"setsid sh -c 'echo $$ > {tmp_path}/pid; sleep 60' & wait"
    _, child = watch(Renewed(2.0), Policy(kill_after=0.5), script)
    until(lambda: ended(child), "the command has ended", 30.0)
    pid = int((tmp_path / "pid").read_text())
    until(lambda: not alive(pid), "it is dead, too", 20.0)


RUN = """
import json, os, sys, time
from lockkit.cli.child import find, spawn
from lockkit.cli.watchdog import Policy
from lockkit.cli.terminal import Terminal
from lockkit.cli.watchdog import Watchdog
from lockkit.lib.clock import SYSTEM

class Lease:
    ttl = 60.0
    claim_id = f"claim{os.getpid()}"
    def follow(self, call):
        call(SYSTEM.now() + float(sys.argv[3]))

terminal = Terminal()
terminal.own_group = sys.argv[2] == "own"
environ = {**os.environ, "LOCKKIT_HELD": json.dumps([{"claim_id": Lease.claim_id}])}
with Watchdog([Lease()], Policy(kill_after=1.0), group=terminal.own_group) as watchdog:
    spawn(find("sh", environ), ["sh", "-c", sys.argv[1]], environ, terminal=terminal, begins=watchdog.begins)
    print(watchdog.pid, flush=True)
    time.sleep(600)
"""


@THROUGH
@pytest.mark.parametrize("strike", ["kill", "stop"])
def test_a_watchdog_kills_what_a_command_has_started(tmp_path, alive, group, through, strike):
    """The kernel kills only the command of a killed ``run``; TERM may end a script before its programs."""
    seconds = "600" if strike == "kill" else "3"
    run = subprocess.Popen(
        [sys.executable, "-c", RUN, program(tmp_path, through), group, seconds],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    with run:
        try:
            watchdog = int(run.stdout.readline())
            until((tmp_path / "pid").exists, "the script has begun", 30.0)
            if strike == "stop":
                run.send_signal(signal.SIGSTOP)
                pid = int((tmp_path / "pid").read_text())
                until(lambda: not alive(pid), "the program of the script has ended", 30.0)
        finally:
            run.kill()
    pid = int((tmp_path / "pid").read_text())
    until(lambda: not alive(pid), "the program of the script has ended", 30.0)
    until(lambda: not alive(watchdog), "so has the watchdog", 30.0)


OUTLIVES = """
import ctypes, subprocess, sys
ctypes.CDLL(None).prctl(1, 0)  # PR_SET_PDEATHSIG: the watchdog comes before the kernel
with subprocess.Popen(["sleep", "600"], start_new_session=True) as daemon:
    print(daemon.pid, file=open(sys.argv[1], "w"), flush=True)
"""


def test_a_watchdog_spares_the_daemons_of_a_run_that_was_killed(tmp_path, alive):
    (tmp_path / "outlives.py").write_text(OUTLIVES)
    script = f"echo $$ > {tmp_path}/command; exec {sys.executable} {tmp_path}/outlives.py {tmp_path}/pid"
    run = subprocess.Popen(
        [sys.executable, "-c", RUN, script, "own", "600"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    with run:
        watchdog = int(run.stdout.readline())
        until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "it has begun", 30.0)
        run.kill()
    daemon = int((tmp_path / "pid").read_text())
    try:
        until(lambda: not alive(int((tmp_path / "command").read_text())), "the command has ended", 30.0)
        until(lambda: not alive(watchdog), "so has the watchdog", 30.0)
        assert alive(daemon)
    finally:
        os.kill(daemon, signal.SIGKILL)


def test_a_late_watchdog_spares_the_process_that_has_the_pid_of_the_command_by_now():
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as stranger:
        watchdog = Watchdog([Renewed(600.0)], Policy(), group=True)
        watchdog._cells[_COMMAND] = stranger.pid
        watchdog._cells[_STARTED] = SYSTEM.now() - 3600.0
        watchdog._outlive()
        assert stranger.poll() is None
        watchdog._cells[_STARTED] = look_at(stranger.pid).started
        watchdog._outlive()
        assert stranger.wait() == -signal.SIGKILL


def test_a_watchdog_waits_for_a_deadline_that_has_moved(watch):
    lease = Renewed(1.0)
    watchdog, child = watch(lease, Policy(kill_after=0.5))
    lease.moves(lease.end + 600.0)
    until(lambda: lease.time_to_stop() == 0, "the first deadline has passed", 30.0)
    assert ended(child) is None
    assert watchdog.acted() is None


def test_a_watchdog_leaves_a_command_alone_that_has_ended_by_itself(watch):
    watchdog, child = watch(Renewed(1.0), Policy(kill_after=0.5), "exit 3")
    until(lambda: os.waitid(os.P_PID, watchdog.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT), "it has ended", 30)
    assert watchdog.acted() is None
    assert ended(child).si_status == 3


def test_a_command_does_not_begin_after_the_deadline(watch, tmp_path):
    _, child = watch(Renewed(0.1), Policy(kill_after=0.05), f"touch {tmp_path}/began; sleep 60")
    until(lambda: ended(child), "the command has ended", 30.0)
    assert not (tmp_path / "began").exists()


@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_no_step_of_the_wall_clock_after_the_grant_moves_the_end_of_max_hold(monkeypatch, step):
    wall = time.time
    with lockkit.connect("memory:") as client:
        lease = client.lock("x", max_hold=60.0).acquire()
        monkeypatch.setattr(time, "time", lambda: wall() + step)
        policy = _policy(Request(("x",), ("true",)), client.config, lease)
        assert policy.ends_at == pytest.approx(SYSTEM.now() + 60.0, abs=30.0)


@pytest.mark.parametrize(
    "policy",
    [
        Policy(on_lost="warn"),
        Policy(silence_ends=False),
        Policy(on_lost="warn", silence_ends=False, ends_at=1.0),
    ],
    ids=["it may go on", "silence does not end it", "it may go on after max_hold"],
)
def test_there_is_no_watchdog_without_a_deadline(policy):
    with Watchdog([Renewed(60.0)], policy, group=True) as watchdog:
        assert watchdog.pid == 0


def test_a_watchdog_has_no_descriptors_and_no_terminal_and_ends_with_its_command(watch):
    watchdog, _ = watch(Renewed(600.0), Policy())
    pid = watchdog.pid

    def left():
        with contextlib.suppress(FileNotFoundError):  # one is being closed
            return [str(one.readlink()) for one in Path(f"/proc/{pid}/fd").iterdir()]

    until(lambda: len(kept := left() or ["?"]) == 1 and "pidfd" in kept[0], "it has closed all others", 30.0)
    assert os.getsid(pid) == pid
    assert Path(f"/proc/{pid}/comm").read_text() == "lockkit-watch\n"
    assert Path(f"/proc/{pid}/cmdline").read_text().strip("\0") == "lockkit-watch", (
        "pkill -f finds the run alone"
    )
    os.kill(pid, signal.SIGTSTP)
    os.kill(pid, signal.SIGTERM)
    assert look_at(pid).state == "S"
    watchdog.end()
    assert look_at(pid) is None


def test_a_watchdog_that_is_killed_has_a_successor(watch):
    lease = Renewed(600.0)
    watchdog, child = watch(lease, Policy(kill_after=0.5))
    killed = watchdog.pid
    os.kill(killed, signal.SIGKILL)
    told = []
    until(lambda: told.append(watchdog.keep()) or told[-1], "its end is seen", 30.0)
    assert told[-1] == "the watchdog was killed; another one has begun"
    assert watchdog.pid not in (0, killed)

    lease.moves(0.0)
    os.kill(watchdog.pid, signal.SIGKILL)  # whoever wakes the third one has not to wait for its next look
    until(watchdog.keep, "its end is seen", 30.0)
    until(lambda: ended(child), "the command has ended", 30.0)
    assert watchdog.acted().killed
    until(lambda: look_at(watchdog.pid).ended, "the watchdog has ended", 30.0)
    assert watchdog.keep() is None, "its work is done"


def test_a_watchdog_that_is_stopped_is_continued(watch):
    watchdog, _ = watch(Renewed(600.0), Policy())
    os.kill(watchdog.pid, signal.SIGSTOP)
    until(lambda: look_at(watchdog.pid).stopped, "it is stopped", 30.0)
    assert watchdog.keep() is None
    until(lambda: not look_at(watchdog.pid).stopped, "it goes on", 30.0)


def test_a_watchdog_that_always_ends_is_not_started_for_ever(watch):
    watchdog, _ = watch(Renewed(600.0), Policy())
    told = []
    while watchdog.pid:
        os.kill(watchdog.pid, signal.SIGKILL)
        until(lambda: told.append(watchdog.keep()) or told[-1], "its end is seen", 30.0)
    assert told[-1].startswith("the watchdog has ended again and again")
    assert watchdog.keep() is None


def test_a_command_is_not_started_without_its_watchdog(watch, monkeypatch):
    def refuse():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    with pytest.raises(CommandFailed, match="cannot start one more process") as told:
        watch(Renewed(600.0), Policy())
    assert code_of(told.value) == 126


def watchdog_of(lockkit, run):
    found = []

    def watches():
        found[:] = [
            pid for pid in children(run.pid) if Path(f"/proc/{pid}/comm").read_text() == "lockkit-watch\n"
        ]
        return found

    lockkit.until(watches)
    return found[0]


def test_a_lock_is_not_free_before_the_watchdog_of_a_killed_run_has_done_its_work(lockkit, alive):
    lockkit.env["LOCKKIT_URL"] = f"sqlite:{lockkit.folder}/locks.db"
    command = (
        "import subprocess; "
        "print(subprocess.Popen(['sleep', '60']).pid, file=open('pid', 'w'), flush=True); "
        "import time; time.sleep(60)"
    )
    run = lockkit.start("run", "x", "--", sys.executable, "-c", command)
    started, watchdog = int(lockkit.file("pid")), watchdog_of(lockkit, run)
    run.send_signal(signal.SIGSTOP)  # or it would continue the watchdog
    os.kill(watchdog, signal.SIGSTOP)
    run.kill()
    run.wait()
    assert alive(started), "it has closed the descriptors that it inherited"
    assert lockkit("run", "x", "--no-wait", "--", "true").returncode == 75
    os.kill(watchdog, signal.SIGCONT)
    assert lockkit("run", "x", "--timeout", "30s", "--", "true").returncode == 0
    assert not alive(started)


def test_a_run_says_that_its_watchdog_was_killed(lockkit):
    run = lockkit.start("run", "x", "--max-hold", "1h", "--", "sleep", "60")
    os.kill(watchdog_of(lockkit, run), signal.SIGKILL)
    assert "the watchdog was killed; another one has begun" in run.stderr.readline()
    lockkit.until(lambda: len(children(run.pid)) == 2)


def test_a_run_whose_caller_ignores_the_ends_of_its_children_waits_for_its_own(lockkit):
    done = lockkit(
        "run", "x", "--max-hold", "1h", "--", "sh", "-c", "exit 3",
        preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (3, "")


def test_a_watchdog_hears_of_an_eviction_behind_the_end_of_another_word():
    read, write = os.pipe()
    try:
        watchdog = Watchdog(
            [Renewed(60.0)], Policy(silence_ends=False), group=True, evictions=(read, [b"abcdef"])
        )
        os.write(write, b"45xyz123abcdef")
        watchdog._hear()
        assert watchdog._deadline() < float("inf")
    finally:
        os.close(read)
        os.close(write)


def test_a_watchdog_ends_the_command_in_an_orderly_way_if_its_run_is_stopped(lockkit):
    lockkit.env["LOCKKIT_URL"] = f"sqlite:{lockkit.folder}/locks.db"
    script = "trap 'echo > termed; exit 7' TERM; echo > began; while :; do sleep 0.05; done"
    run = lockkit.start("run", "x", "--max-hold", "20s", "--kill-after", "10s", "--", "sh", "-c", script)
    lockkit.until((lockkit.folder / "began").exists)
    run.send_signal(signal.SIGSTOP)
    lockkit.until((lockkit.folder / "termed").exists)
    run.send_signal(signal.SIGCONT)
    out, err = run.communicate(timeout=40)
    assert (run.returncode, out) == (76, "")
    assert "max_hold (20 s) is nearly over); the watchdog ended the command at " in err
    assert "because this lockkit run was stopped" in err
    assert "killed" not in err


def test_a_command_that_the_watchdog_ended_in_time_is_not_reported_as_killed_late(lockkit):
    lockkit.env["LOCKKIT_URL"] = f"sqlite:{lockkit.folder}/locks.db"
    script = "trap 'echo > termed; exit 7' TERM; echo > began; while :; do sleep 0.05; done"
    run = lockkit.start("run", "x", "--max-hold", "3s", "--kill-after", "1s", "--", "sh", "-c", script)
    lockkit.until((lockkit.folder / "began").exists)
    run.send_signal(signal.SIGSTOP)
    lockkit.until((lockkit.folder / "termed").exists)
    lockkit.until(lambda: not lockkit.claims("x"))  # the lock may be the next one's from here on
    run.send_signal(signal.SIGCONT)
    _, err = run.communicate(timeout=40)
    assert run.returncode == 76
    assert "the watchdog ended the command at " in err
    assert "killed" not in err


def test_a_watchdog_that_has_ended_the_command_kills_the_rest_of_its_group(lockkit, alive):
    script = (
        "sh -c \"trap '' TERM; echo \\$\\$ > ignores; while :; do sleep 0.05; done\" & "
        "while :; do sleep 0.05; done"
    )
    run = lockkit.start("run", "x", "--max-hold", "20s", "--kill-after", "10s", "--", "sh", "-c", script)
    lockkit.until(lambda: (lockkit.folder / "ignores").exists() and (lockkit.folder / "ignores").read_text())
    run.send_signal(signal.SIGSTOP)
    lockkit.until(lambda: not alive(int((lockkit.folder / "ignores").read_text())))
    run.send_signal(signal.SIGCONT)
    assert run.wait(40) == 76


def test_a_watchdog_dies_with_a_run_that_is_killed(lockkit, alive):
    run = lockkit.start("run", "x", "--max-hold", "1h", "--", "sleep", "60")
    lockkit.until(lambda: len(children(run.pid)) == 2)
    both = children(run.pid)
    run.kill()
    run.wait()
    lockkit.until(lambda: not any(map(alive, both)))
