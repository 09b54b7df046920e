"""Supervision of a running command: pass on signals, stop with it, end it before its lock is gone.

As the first process of a container the supervisor also collects the processes that the command leaves behind.

If the hold is not renewed, another claim can get the lock at a known deadline, and the command must be dead
by then: it gets TERM ``kill_after`` before the deadline, and KILL just before it. A process-bound claim does
not lapse without renewals; only an eviction or max_hold ends it. While this process is stopped, its watchdog
ends the command (:mod:`lockkit.cli.watchdog`).
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from lockkit.cli.child import Child
from lockkit.cli.signals import PASSED_ON, Signals
from lockkit.cli.terminal import Terminal
from lockkit.cli.watchdog import KILL_MARGIN, Policy
from lockkit.lib.namedtuples import NamedTuple
from lockkit.values import durations

if TYPE_CHECKING:
    from lockkit.cli.adopted import Adopted
    from lockkit.cli.watchdog import Watchdog

__all__ = ["MAX_HOLD", "Ended", "Held", "Supervisor"]

MAX_HOLD = "max_hold"
"""The first word of the reason for a loss that max_hold caused: planned, and no failure."""

_SILENT = "it was not renewed in time"
_SAMPLE = 5.0
_SIGHT = 1.0
"""Seconds between two looks at the processes of the command, at least."""
_IN_VAIN = 2
"""The SIGINT at which the command has survived one."""
_FIRST = 1
"""The pid of the first process of a container."""
_STOPS = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
_BY_TERMINAL = frozenset({signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGWINCH})


class Held(Protocol):
    """The part of a lease that the supervisor uses."""

    @property
    def lost(self) -> threading.Event: ...

    def time_to_stop(self) -> float: ...


class Ended(NamedTuple):
    """The end of a command: its exit code or signal, and the reason if a lost lock ended it.

    ``by_ctrl_c``: the terminal's SIGINT ended the command, not one sent to the wrapper and passed on.
    """

    code: int | None
    signal: int | None
    lost: str | None
    by_ctrl_c: bool = False

    @property
    def exit_code(self) -> int:
        return self.code if self.code is not None else 128 + (self.signal or 0)


class Supervisor:
    """The main thread's watch over one command and its lease.

    Args:
        tell: Called with a sentence for each message to the user.
        now: The current time of CLOCK_BOOTTIME.
        lost_why: Called once when the lease is found lost; returns the reason in words.
        lost_what: Returns what is lost, in words.
        asked: Returns the requests to release the lock that came since the last call, each in words.
        sees: Looks at the command's processes: at times, and between its end and its reaping; may be None.
        watchdog: The watchdog of the command; None if it has none.
        clock_time: Writes a time of CLOCK_BOOTTIME for the user.
    """

    def __init__(
        self,
        child: Child,
        signals: Signals,
        terminal: Terminal,
        lease: Held | None,
        policy: Policy,
        *,
        tell: Callable[[str], None],
        now: Callable[[], float],
        lost_why: Callable[[], str] = lambda: "lost",
        lost_what: Callable[[], str] = lambda: "the lock",
        asked: Callable[[], Sequence[str]] = tuple,
        sees: Callable[[], None] | None = None,
        watchdog: Watchdog | None = None,
        clock_time: Callable[[float], str] = str,
    ) -> None:
        self._child = child
        self._signals = signals
        self._terminal = terminal
        self._lease = lease
        self._policy = policy
        self._tell = tell
        self._now = now
        self._lost_why = lost_why
        self._lost_what = lost_what
        self._asked = asked
        self._sees = sees
        self._watchdog = watchdog
        self._clock_time = clock_time
        self._seen = 0.0
        self._deadline = 0.0
        self._ending: str | None = None
        self._ended_at = 0.0
        self._killed = False
        self._interrupted = 0
        self._may_be_ctrl_c = terminal.foreground is not None
        self._adopted: Adopted | None = None

    def run(self) -> Ended:
        """Supervise the command to its end. The lock is not released here."""
        try:
            self._spare()
            return self._supervised()
        except BaseException:
            self._give_up()
            raise

    def _supervised(self) -> Ended:
        while True:
            pause = self._look_at_lease()
            for number in self._signals.take():
                self._pass_on(number)
            for request in self._asked():
                self._pass_on_request(request)
            self._see()
            ended = self._look_at_child()
            if ended is not None:
                return ended
            self._keep_watchdog()
            if self._adopted is not None:
                pause = min(pause, self._adopted.collect(self._now()))
            self._signals.wait(pause)

    # -- signals and stops ----------------------------------------------------------------------------------

    def _pass_on(self, number: int) -> None:
        if number == signal.SIGINT:
            self._tell_of_another_way()
        if number == signal.SIGCONT:
            self._continue()
        elif number in PASSED_ON:
            if self._child.group is None and number in _BY_TERMINAL and self._terminal.present:
                # The terminal has sent the signal to the whole pipeline, including the command.
                if number == signal.SIGTSTP:
                    self._terminal.stop(alone=True)
                return
            self._child.signal(number)
            if number == signal.SIGINT:
                self._may_be_ctrl_c = False
            if number in (signal.SIGTERM, signal.SIGHUP):
                # A stopped command handles the signal only when it continues.
                self._child.signal(signal.SIGCONT)

    def _tell_of_another_way(self) -> None:
        """At the second SIGINT that the command survives, say how else to end it."""
        self._interrupted += 1
        if self._interrupted == _IN_VAIN:
            pid = self._child.pid
            self._tell(
                f"the command (pid {pid}) goes on after Ctrl-C (SIGINT); to end it: kill {pid}, and if it "
                f"ignores that too: kill -9 {pid}"
            )

    def _pass_on_request(self, request: str) -> None:
        """Report a request to release the lock, and send the command the signal for it."""
        number = self._policy.on_ask
        if self._ending is not None:
            self._tell(request)
        elif number is None:
            self._tell(f"{request}; the command goes on (--on-ask ignore)")
        else:
            name = signal.Signals(number).name.removeprefix("SIG")
            self._tell(f"{request}; sending the command {name}")
            self._child.signal(number)
            if number in (signal.SIGTERM, signal.SIGHUP):
                self._child.signal(signal.SIGCONT)

    def _stopped(self, number: int) -> None:
        """Follow a stop of the command. If the terminal stopped it, the shell must see its job stopped."""
        group = self._child.group
        if group is None or not self._terminal.present:
            return
        in_front = self._terminal.has_it(group)
        if not in_front and number == signal.SIGSTOP:
            return  # another process sent SIGSTOP; the wrapper continues to renew
        self._terminal.take_back(group)
        self._terminal.stop()
        self._continue()

    def _continue(self) -> None:
        """Continue after a stop. The lock may be lost by now; then the command must not run again."""
        self._look_at_lease()
        if self._child.group is not None:
            self._terminal.give(self._child.group)
            self._child.signal(signal.SIGCONT)

    # -- the command ----------------------------------------------------------------------------------------

    def _look_at_child(self) -> Ended | None:
        while True:
            found = os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WSTOPPED | os.WNOHANG | os.WNOWAIT)
            if found is None:
                return None
            if found.si_code == os.CLD_STOPPED:
                os.waitid(os.P_PID, self._child.pid, os.WSTOPPED | os.WNOHANG)
                if found.si_status in _STOPS:
                    self._stopped(found.si_status)
                continue
            if self._watchdog is not None:
                self._watchdog.end()  # before the pid of the command may mean another process
                self._heed_watchdog()
            if self._ending is not None and self._policy.on_lost != "warn":
                self._child.kill()  # the rest of its group must not touch what the next holder guards
            self._see(at_last=True)
            _, status = os.waitpid(self._child.pid, 0)
            if self._child.group is not None:
                self._terminal.take_back(self._child.group)
            code = os.waitstatus_to_exitcode(status)
            number = -code if code < 0 else None
            by_ctrl_c = number == signal.SIGINT and self._may_be_ctrl_c and self._ending is None
            return Ended(code if code >= 0 else None, number, self._ending, by_ctrl_c)

    def _see(self, *, at_last: bool = False) -> None:
        now = self._now()
        if self._sees is not None and (at_last or now - self._seen >= _SIGHT):
            self._seen = now
            self._sees()

    def _give_up(self) -> None:
        """Kill the command and what it has started: the lock is released next."""
        try:
            os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return  # reaped already, so its pid may mean another process
        if self._watchdog is not None:
            self._watchdog.end()
        self._child.kill(daemons=False)
        self._child.outlast()
        os.waitpid(self._child.pid, 0)

    # -- the lock -------------------------------------------------------------------------------------------

    def _look_at_lease(self) -> float:
        """Act on the state of the lease. Returns the seconds until the next look."""
        if self._lease is None:
            return 3600.0
        now = self._now()
        policy = self._policy
        gone = self._lease.lost.is_set()
        self._deadline = now + self._lease.time_to_stop()
        self._heed_watchdog()
        if self._ending is None:
            soft = max(policy.kill_after, KILL_MARGIN)
            lead = {"term": soft, "kill": KILL_MARGIN, "warn": 0.0}[policy.on_lost]
            self._ending = self._reason(now, lead, gone=gone)
            if self._ending is None:
                return self._pause(now, lead)
            self._ended_at = now
            self._begin()
        return self._finish(now)

    def _keep_watchdog(self) -> None:
        told = None if self._watchdog is None else self._watchdog.keep()
        if told is not None:
            self._tell(told)
            self._spare()

    def _spare(self) -> None:
        """As the first process of a container, collect what the command leaves behind, and nothing else."""
        if os.getpid() == _FIRST:
            from lockkit.cli.adopted import Adopted  # late: few runs are the first process of a container

            self._adopted = Adopted(
                self._child.pid, *([] if self._watchdog is None else [self._watchdog.pid])
            )

    def _heed_watchdog(self) -> None:
        """Report what the watchdog did while this process was stopped, and record it as done here."""
        acted = None if self._watchdog is None else self._watchdog.acted()
        if acted is None or self._killed:
            return
        if self._ending is not None:
            if acted.killed:
                self._tell_of_kill(in_time=acted.in_time)
            return
        self._ended_at, self._killed = acted.at, acted.killed
        why = "it was evicted" if acted.evicted else _SILENT
        self._ending = self._reason(acted.at, self._policy.kill_after, gone=False) or why
        self._tell(
            f"{self._lost_what()} is lost ({self._ending}); the watchdog "
            f"{'killed' if acted.killed else 'ended'} the command at {self._clock_time(acted.at)}, because "
            f"this lockkit run {'was stopped' if acted.stopped else 'was late'}"
        )

    def _tell_of_kill(self, *, in_time: bool) -> None:
        self._killed = True
        if in_time:
            self._tell("killed the command before its lock goes to the next in the queue")
        else:
            self._tell("killed the command late: its lock may have gone to the next in the queue")

    def _reason(self, now: float, lead: float, *, gone: bool) -> str | None:
        ends_at = self._policy.ends_at
        if ends_at is not None and now >= ends_at - lead:
            length = "" if self._policy.max_hold is None else f" ({durations.show(self._policy.max_hold)})"
            return f"{MAX_HOLD}{length} {'is over' if now >= ends_at else 'is nearly over'}"
        if gone:
            return self._lost_why()
        if self._policy.silence_ends and now >= self._deadline - lead:
            return _SILENT
        return None

    def _pause(self, now: float, lead: float) -> float:
        until = float("inf")
        if self._policy.silence_ends:
            until = self._deadline - lead
        if self._policy.ends_at is not None:
            until = min(until, self._policy.ends_at - lead)
        return min(max(until - now, 0.01), _SAMPLE)

    def _begin(self) -> None:
        assert self._ending is not None
        if self._policy.on_lost == "warn":
            self._tell(
                f"{self._lost_what()} is lost ({self._ending}); the command continues "
                "without it (--on-lost warn)"
            )
        elif self._policy.on_lost == "term":
            # The signals come first: a reader of stderr that stands still must not delay them.
            self._child.signal(signal.SIGTERM)
            self._child.signal(signal.SIGCONT)
            if self._ending.startswith(MAX_HOLD):
                left = durations.show(max(self._kill_at() - self._ended_at, 0.0))
                self._tell(f"{self._ending}: TERM now, KILL in {left} if the command still runs")
            else:
                self._tell(f"{self._lost_what()} is lost ({self._ending}); ending the command")

    def _kill_at(self) -> float:
        """The time of KILL for a command that is being ended."""
        if self._policy.on_lost != "term":
            return self._ended_at
        return min(self._deadline - KILL_MARGIN, self._ended_at + self._policy.kill_after)

    def _finish(self, now: float) -> float:
        if self._policy.on_lost == "warn" or self._killed:
            return _SAMPLE
        kill_at = self._kill_at()
        if now < kill_at:
            return kill_at - now
        if os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return _SAMPLE  # the command has ended, perhaps long ago: this process may have been stopped
        self._child.kill()
        self._tell_of_kill(in_time=now < self._deadline)
        return _SAMPLE
