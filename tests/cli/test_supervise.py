"""The supervisor against a lease that falls silent, with real processes and a clock that only it sees as faster."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading

import pytest

import lockkit
from lockkit.cli.child import _PR_SET_PDEATHSIG, _prctl, find, spawn
from lockkit.cli.signals import Signals
from lockkit.cli.supervise import Policy, Supervisor
from lockkit.cli.terminal import Terminal
from lockkit.clock import SYSTEM
from lockkit.testing.processes import until


class Silent:
    """A lease that nobody renews any more.

    Args:
        seconds: The time until its deadline.
        slow: How many times as long each of these seconds lasts: beside a margin of slow seconds a stall of the machine is short.
    """

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

    def run(script: str, lease: Silent | None, policy: Policy, told=lambda: None):
        said: list[str] = []
        with Signals() as signals:
            signals.record()
            words = ["sh", "-c", script]
            child = spawn(
                find("sh", os.environ), words, os.environ, terminal=terminal, handled=signals.handled()
            )
            ended = Supervisor(
                child,
                signals,
                terminal,
                lease,
                policy,
                tell=lambda sentence: (said.append(sentence), told()),
                now=SYSTEM.now if lease is None else lease.now,
            ).run()
        return ended, said

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
    script = f"trap '' INT; echo $$ > {tmp_path}/pid; until [ -e {told} ]; do kill -INT $PPID; sleep 0.05; done; exit 7"
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
