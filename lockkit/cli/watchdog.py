"""The watchdog of a command: a process that ends the command in time if ``lockkit run`` itself is stopped.

A stopped ``run`` (SIGSTOP, Ctrl-Z, a debugger) can neither renew the lock nor end its command, and the lock
goes to the next in the queue at a known deadline. The watchdog is a fork of ``run`` that shares one page of
memory with it: the renewing thread of ``run`` writes each new deadline there, and the watchdog writes when it
acted. Just before the deadline it kills the command, whatever ``run`` does. If it finds ``run`` stopped, it
sends TERM first, at the time at which ``run`` would have sent it.

On a store with process-bound claims (the embedded one) a claim does not end when renewals stop, but it does
end after an eviction. There the watchdog reads the descriptor by which the store reports evictions, and from
then on the time since the last renewal counts. The same descriptor keeps the claim alive until the watchdog
of a killed ``run`` has ended.

The watchdog has its own session and blocks all signals, so that no key of the terminal and no signal to a
process group reaches it. It closes all other descriptors that it inherited, so that it keeps no pipe open. It
never signals the wrong process, because ``run`` kills the watchdog before it reaps the command, and until
then the command keeps its pid.

If ``run`` is killed, the kernel kills the command (prctl(2)), but not what the command has started, such as
the programs of a script. The watchdog kills them at once, and ends when they are dead: the process group of
the command, and all processes of the session that were started under the claim. The latter matter where the
command leads no group (in a pipeline on a terminal), and because some programs leave it (``timeout``, a shell
with job control, ``run --nested reuse``). A daemon has a session of its own. A pid is not given to another
process as long as it names a group; if the group is empty and the pid was reused, the start time shows it.
"""

from __future__ import annotations

import mmap
import os
import select
import signal
from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Literal, NoReturn, Protocol, Self

from lockkit.cli.child import Child, dies_with, forked, prctl
from lockkit.cli.exits import CommandFailed
from lockkit.lib.clock import SYSTEM
from lockkit.lib.namedtuples import NamedTuple
from lockkit.values.identity import look_at, process_start, same_start

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["KILL_MARGIN", "NAME", "Acted", "Policy", "Watchdog"]

NAME = "lockkit-watch"
"""The name of the process of a watchdog, as ``ps`` and ``top`` show it."""
KILL_MARGIN = 0.25
"""Seconds before the deadline at which KILL is sent, because the kernel takes a moment to end a process."""
_SAMPLE = 5.0
"""The most seconds between two looks. poll(2) does not count the time for which the machine sleeps, and
deadlines do, so a long pause could end too late."""
_SOON = 0.05
"""Seconds between two looks when TERM is due, as ``run`` may be stopped, or while the command starts."""
_MOST = 5
"""The number of watchdogs of one command, at most, in case that each is ended at once."""
_PR_SET_NAME = 15
_COMMAND, _STARTED, _TERM_SENT, _KILL_SENT, _WAS_STOPPED, _EVICTED, _ENDS = range(7)
"""The cells of the page; the deadline of each lease follows. A cell has eight bytes, which a processor
reads and writes as a whole. 0 means: not yet."""


class Policy(NamedTuple):
    """The treatment of a command whose lock is lost.

    Attributes:
        ends_at: The end of max_hold, in seconds of CLOCK_BOOTTIME; None if there is no max_hold.
        max_hold: The seconds of max_hold, for messages; None if there is none.
        silence_ends: Whether the claim lapses without renewals (it is not process-bound).
        on_ask: The signal to send when somebody asks for the release of the lock; None to send none.
    """

    on_lost: Literal["term", "kill", "warn"] = "term"
    kill_after: float = 10.0
    ends_at: float | None = None
    max_hold: float | None = None
    silence_ends: bool = True
    on_ask: int | None = None


class Followed(Protocol):
    """The part of a lease that the watchdog uses."""

    @property
    def ttl(self) -> float: ...

    @property
    def claim_id(self) -> str: ...

    def follow(self, call: Callable[[float], object]) -> None: ...


class Acted(NamedTuple):
    """The acts of a watchdog.

    Attributes:
        at: The time of its first signal to the command, in seconds of CLOCK_BOOTTIME.
        killed: Whether it has sent KILL.
        in_time: Whether it did so before the deadline.
        stopped: Whether it saw ``run`` stopped.
        evicted: Whether it heard of an eviction.
    """

    at: float
    killed: bool
    in_time: bool
    stopped: bool
    evicted: bool


class Watchdog:
    """The watchdog of one command, from the ``with`` statement on.

    Args:
        leases: The leases that the command works under.
        policy: The treatment of the command when its lock is lost.
        group: Whether the command leads a process group of its own.
        evictions: The descriptor and the messages by which the store reports evictions
            (:class:`lockkit.store.spi.Extras`); None if it does not.
        now: The current time of CLOCK_BOOTTIME.
    """

    def __init__(
        self,
        leases: Sequence[Followed],
        policy: Policy,
        *,
        group: bool,
        evictions: tuple[int, Sequence[bytes]] | None = None,
        now: Callable[[], float] = SYSTEM.now,
    ) -> None:
        self._cells = memoryview(mmap.mmap(-1, 8 * (_ENDS + len(leases) + 1))).cast("d")
        self._policy = policy
        self._group = group
        self._now = now
        self._evictions = evictions
        self._spared = min((lease.ttl for lease in leases), default=0.0) / 2
        self._claims = [lease.claim_id for lease in leases]
        self._parent, self._session = os.getpid(), os.getsid(0)
        self.pid = self._begun = 0
        self._cells[_ENDS] = float("inf") if policy.ends_at is None else policy.ends_at
        for place, lease in enumerate(leases, _ENDS + 1):
            lease.follow(partial(self._cells.__setitem__, place))

    @property
    def needed(self) -> bool:
        """Whether there is, or may be, a deadline at which the command has to be dead."""
        may_end = self._evictions is not None or self._deadline() < float("inf")
        return self._policy.on_lost != "warn" and may_end

    def __enter__(self) -> Self:
        if self.needed:
            self._begun = 1
            self.pid = forked(self._watch)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def begins(self) -> None:
        """Give the watchdog the pid of the command; or die, if it is too late to start the command.

        To be called in the process that is about to execute the command.
        """
        if self.pid:
            self._cells[_STARTED] = process_start(os.getpid()) or 0.0
            self._cells[_COMMAND] = os.getpid()
            if self._now() >= self._kill_at():
                os.kill(os.getpid(), signal.SIGKILL)

    def acted(self) -> Acted | None:
        """The acts of the watchdog so far; None if there are none."""
        termed, killed = self._cells[_TERM_SENT], self._cells[_KILL_SENT]
        if not termed and not killed:
            return None
        return Acted(
            at=termed or killed,
            killed=bool(killed),
            in_time=killed < self._deadline(),
            stopped=bool(self._cells[_WAS_STOPPED]),
            evicted=bool(self._cells[_EVICTED]),
        )

    def end(self) -> None:
        """Kill the watchdog, so that it sends no more signals. Reap the command only after it. Repeatable."""
        pid, self.pid = self.pid, 0
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def keep(self) -> str | None:
        """Continue a stopped watchdog, and restart a killed one; returns what happened, in words."""
        found = self.pid and os.waitid(os.P_PID, self.pid, os.WEXITED | os.WSTOPPED | os.WNOHANG)
        if not found:
            return None
        if found.si_code == os.CLD_STOPPED:
            os.kill(self.pid, signal.SIGCONT)
            return None
        self.pid = 0
        if found.si_status == 0:  # it has done its work
            return None
        self._begun += 1
        try:
            if self._begun > _MOST:
                return (
                    "the watchdog has ended again and again; if this lockkit run is stopped, "
                    "nobody ends the command in time"
                )
            self.pid = forked(self._watch)
        except CommandFailed as error:
            return (
                f"the watchdog was killed, and there is no other ({error}); if this lockkit run is "
                "stopped, nobody ends the command in time"
            )
        return "the watchdog was killed; another one has begun"

    # -- in the process of the watchdog

    def _watch(self, _mask: object) -> NoReturn:
        try:
            signal.set_wakeup_fd(-1)
            os.setsid()
            _rename()
            heeded = () if self._evictions is None else (self._evictions[0],)
            for descriptor in _descriptors():
                if descriptor not in heeded:
                    try:
                        os.close(descriptor)
                    except OSError:
                        continue  # that of the list itself
            bell = select.poll()
            for descriptor in heeded:
                bell.register(descriptor, select.POLLIN)
            run = _end_of(self._parent)
            if run is None:
                dies_with(self._parent)
            else:
                bell.register(run, select.POLLIN)
            pause: float | None = 0.0
            while pause is not None:
                heard = [descriptor for descriptor, _ in bell.poll(pause * 1000)]
                if run in heard or (run is not None and os.getppid() != self._parent):
                    self._outlive()
                    break
                if heard:
                    self._hear()
                pause = self._look()
            os._exit(0)
        finally:
            os._exit(1)

    def _look(self) -> float | None:
        """Do what is due. Returns the seconds until the next look; None if nothing is left to do."""
        now, kill_at = self._now(), self._kill_at()
        term_at = min(kill_at, self._deadline() - self._policy.kill_after)
        soft = self._policy.on_lost == "term" and not self._cells[_TERM_SENT]
        if now < (term_at if soft else kill_at):
            return min((term_at if soft else kill_at) - now, _SAMPLE)
        pid = int(self._cells[_COMMAND])
        if not pid:
            return _SOON
        command, run = look_at(pid), look_at(self._parent)
        stopped = run is not None and run.stopped
        child = self._child(pid)
        if command is not None and command.ended:
            if self._cells[_TERM_SENT]:  # else it has ended by itself, and in time
                child.kill()  # the rest of its group must not touch what the next holder guards
            return None
        if now >= kill_at:
            self._note(_KILL_SENT, now, stopped=stopped)
            child.kill()
            return None
        if stopped:
            self._note(_TERM_SENT, now, stopped=stopped)
            child.signal(signal.SIGTERM)
            child.signal(signal.SIGCONT)
        return min(kill_at - now, _SOON)

    def _outlive(self) -> None:
        """Kill what is left of a command whose ``run`` has ended without it, and wait until it is dead."""
        pid = int(self._cells[_COMMAND])
        if not pid:
            return  # the command has not begun, and will not: it dies with its parent
        child, there = self._child(pid), process_start(pid)
        if self._group and (there is None or same_start(there, self._cells[_STARTED])):
            # The kernel may have killed the command already; then its own daemons are unknown.
            child.kill(daemons=False)
        else:
            child.kill_left()  # the pid means another process, or may soon
        child.outlast()

    def _child(self, pid: int) -> Child:
        return Child(pid, pid if self._group else None, self._claims, self._session)

    def _hear(self) -> None:
        """Note an eviction. No other process needs this data: ``run`` waits for no lock by then."""
        assert self._evictions is not None
        descriptor, words = self._evictions
        try:
            read = os.read(descriptor, 65536)
        except BlockingIOError:
            return
        # Not in steps of a word: a slow reader may get the end of a word that the full pipe cut off.
        if not self._cells[_EVICTED] and any(word in read for word in words):
            self._cells[_EVICTED] = self._now()

    def _note(self, place: int, now: float, *, stopped: bool) -> None:
        """Note a signal before it is sent, so that ``run`` never finds a dead command without the note."""
        self._cells[_WAS_STOPPED] = stopped
        self._cells[place] = now

    def _deadline(self) -> float:
        limit, silence = self._cells[_ENDS], min(self._cells[_ENDS + 1 :], default=float("inf"))
        if self._policy.silence_ends:
            return min(limit, silence)
        evicted = self._cells[_EVICTED]
        return min(limit, max(silence, evicted + self._spared)) if evicted else limit

    def _kill_at(self) -> float:
        return self._deadline() - KILL_MARGIN


def _end_of(pid: int) -> int | None:
    """A descriptor that becomes readable when a process ends (pidfd_open(2)); None if there is none."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def _descriptors() -> Sequence[int]:
    """The open descriptors of this process; all possible ones where there is no /proc."""
    try:
        return [int(name) for name in os.listdir("/proc/self/fd")]  # noqa: PTH208 (names, not paths)
    except OSError:
        return range(os.sysconf("SC_OPEN_MAX"))


def _rename() -> None:
    """Show the watchdog under its own name, so that ``pkill -f`` of a ``run`` does not hit both."""
    if prctl is not None:
        prctl(_PR_SET_NAME, NAME.encode(), 0, 0, 0)
    try:
        stat, memory = os.open("/proc/self/stat", os.O_RDONLY), os.open("/proc/self/mem", os.O_WRONLY)
        start, end = map(
            int, os.read(stat, 4096).rpartition(b")")[2].split()[45:47]
        )  # arg_start, arg_end: proc_pid_stat(5)
        os.pwrite(memory, NAME.encode().ljust(end - start, b"\0")[: end - start], start)
    except (OSError, ValueError):
        return  # for looks only
