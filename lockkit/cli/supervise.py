"""From the command's start to its end: pass signals on, follow stops and continues, end it before its lock is gone.

A lock that may have lapsed goes to somebody else at a known time, so the command must be dead by then: TERM at the
deadline less ``kill_after``, KILL just before the deadline. A process-bound claim doesn't lapse by silence; it is lost
only by an eviction or max_hold.
"""

import os
import signal
import threading
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

from lockkit.cli.child import Child
from lockkit.cli.signals import PASSED_ON, Signals
from lockkit.cli.terminal import Terminal

__all__ = ["Ended", "Held", "Policy", "Supervisor"]

KILL_MARGIN = 0.25
"""Seconds before the deadline at which KILL is sent: a kernel takes a moment to take a process apart."""
_SAMPLE = 5.0
_STOPS = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
_BY_TERMINAL = frozenset({signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGWINCH})


class Held(Protocol):
    """What is asked of a lease."""

    @property
    def lost(self) -> threading.Event: ...

    def time_to_stop(self) -> float: ...


class Policy(NamedTuple):
    """What is done when the lock is lost under a running command.

    Attributes:
        ends_at: CLOCK_BOOTTIME seconds of max_hold; None for none.
        silence_ends: The claim lapses by silence (it isn't process-bound).
    """

    on_lost: Literal["term", "kill", "warn"] = "term"
    kill_after: float = 10.0
    ends_at: float | None = None
    silence_ends: bool = True


class Ended(NamedTuple):
    """How the command ended: its exit code or signal, and whether it was ended because the lock went.

    ``by_ctrl_c``: the terminal's SIGINT ended it, and not one that was sent to us and passed on.
    """

    code: int | None
    signal: int | None
    lost: str | None
    by_ctrl_c: bool = False

    @property
    def exit_code(self) -> int:
        return self.code if self.code is not None else 128 + (self.signal or 0)


class Supervisor:
    """Watches one command and its lease from the main thread.

    Args:
        tell: Is given one sentence for each thing the user should know.
        now: CLOCK_BOOTTIME.
        lost_why: Asked once when the lease is found lost: the words for it.
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
    ) -> None:
        self._child = child
        self._signals = signals
        self._terminal = terminal
        self._lease = lease
        self._policy = policy
        self._tell = tell
        self._now = now
        self._lost_why = lost_why
        self._deadline = 0.0
        self._ending: str | None = None
        self._ended_at = 0.0
        self._killed = False
        self._may_be_ctrl_c = terminal.foreground is not None

    def run(self) -> Ended:
        """Return when the command has ended. The lock is still to be released then."""
        while True:
            pause = self._look_at_lease()
            for number in self._signals.take():
                self._pass_on(number)
            ended = self._look_at_child()
            if ended is not None:
                return ended
            self._signals.wait(pause)

    # -- signals and stops ------------------------------------------------------------------------------------

    def _pass_on(self, number: int) -> None:
        if number == signal.SIGCONT:
            self._continue()
        elif number in PASSED_ON:
            if self._child.group is None and number in _BY_TERMINAL and self._terminal.present:
                # The terminal has sent it to the whole pipeline, the command among it.
                if number == signal.SIGTSTP:
                    self._terminal.stop(alone=True)
                return
            self._child.signal(number)
            if number == signal.SIGINT:
                self._may_be_ctrl_c = False
            if number in (signal.SIGTERM, signal.SIGHUP):
                self._child.signal(signal.SIGCONT)  # a stopped command hears it only when it goes on

    def _stopped(self, number: int) -> None:
        """The command was stopped. If that was the terminal's doing, the shell must see its job stopped."""
        group = self._child.group
        if group is None or not self._terminal.present:
            return
        in_front = self._terminal.has_it(group)
        if not in_front and number == signal.SIGSTOP:
            return  # somebody else's kill -STOP; we go on renewing
        self._terminal.take_back(group)
        self._terminal.stop()
        self._continue()

    def _continue(self) -> None:
        """We go on after a stop: the lock may be gone by now, and the command must not run a moment without it."""
        self._look_at_lease()
        if self._child.group is not None:
            self._terminal.give(self._child.group)
            self._child.signal(signal.SIGCONT)

    # -- the command ------------------------------------------------------------------------------------------

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
            if self._ending is not None and self._policy.on_lost != "warn":
                self._child.kill()  # what it left in its group must not touch what the next holder guards
            _, status = os.waitpid(self._child.pid, 0)
            if self._child.group is not None:
                self._terminal.take_back(self._child.group)
            code = os.waitstatus_to_exitcode(status)
            number = -code if code < 0 else None
            by_ctrl_c = number == signal.SIGINT and self._may_be_ctrl_c and self._ending is None
            return Ended(code if code >= 0 else None, number, self._ending, by_ctrl_c)

    # -- the lock ---------------------------------------------------------------------------------------------

    def _look_at_lease(self) -> float:
        """Act on how the lease stands; seconds until it is to be looked at again."""
        if self._lease is None:
            return 3600.0
        now = self._now()
        policy = self._policy
        gone = self._lease.lost.is_set()
        self._deadline = now + self._lease.time_to_stop()
        if self._ending is None:
            lead = {"term": policy.kill_after, "kill": KILL_MARGIN, "warn": 0.0}[policy.on_lost]
            self._ending = self._reason(now, lead, gone=gone)
            if self._ending is None:
                return self._pause(now, lead)
            self._ended_at = now
            self._begin()
        return self._finish(now)

    def _reason(self, now: float, lead: float, *, gone: bool) -> str | None:
        ends_at = self._policy.ends_at
        if ends_at is not None and now >= ends_at - lead:
            return "max_hold is over" if now >= ends_at else "max_hold is nearly over"
        if gone:
            return self._lost_why()
        if self._policy.silence_ends and now >= self._deadline - lead:
            return "not renewed in time"
        return None

    def _pause(self, now: float, lead: float) -> float:
        until = float("inf")
        if self._policy.silence_ends:
            until = self._deadline - lead
        if self._policy.ends_at is not None:
            until = min(until, self._policy.ends_at - lead)
        return min(max(until - now, 0.01), _SAMPLE)

    def _begin(self) -> None:
        if self._policy.on_lost == "warn":
            self._tell(f"the lock is lost ({self._ending}); the command goes on without it (--on-lost warn)")
        elif self._policy.on_lost == "term":
            self._tell(f"the lock is lost ({self._ending}); ending the command")
            self._child.signal(signal.SIGTERM)
            self._child.signal(signal.SIGCONT)

    def _finish(self, now: float) -> float:
        if self._policy.on_lost == "warn" or self._killed:
            return _SAMPLE
        kill_at = self._ended_at
        if self._policy.on_lost == "term":
            kill_at = min(self._deadline - KILL_MARGIN, self._ended_at + self._policy.kill_after)
        if now < kill_at:
            return kill_at - now
        self._tell("killing the command: its lock is about to go to the next in line")
        self._killed = True
        self._child.kill()
        return _SAMPLE
