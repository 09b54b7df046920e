"""The watch of a worker's main process over its pool processes: it evicts a killed one's locks at once.

A pool process that ends in order releases its lock. A killed one's lock would lapse only after its ttl. So
the main process learns of each death from the kernel (pidfd_open(2)), on a thread of its own, reads what the
process may have held, and evicts that, given the proofs of :mod:`lockkit.integrations.celery.freeing`. No
hook of Celery takes part: Celery and billiard call those before the process is dead.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from lockkit.errors import LockkitError
from lockkit.facts import Keeper
from lockkit.integrations.celery.freeing import Dead, free
from lockkit.integrations.celery.held_by_child import Greeting, open_channel, read_greeting, read_notes
from lockkit.lib.descent import children
from lockkit.lib.printable import printable
from lockkit.store.log import Log
from lockkit.store.starting import owned
from lockkit.sync.client import Client
from lockkit.values.identity import look_at, same_start

__all__ = ["Watch"]

_log = Log("lockkit")
_SOON, _LATER = 0.1, 0.5
"""Seconds until the next look at processes that outlive their starter: at first, and after a while."""
_TELL_AFTER = 2.0
"""Seconds until the log names processes that keep locks; by then a new pool process is known as one."""
_AGAIN = 1.0
"""Seconds until the store is asked once more, for a request of the dead process that was under way."""
_GIVE_UP = 3600.0
"""Seconds after which claims that cannot be evicted are left alone; nearly all have lapsed by then."""
_ZOMBIES_EVERY = 10.0
_ZOMBIE_LOOKS = 6
"""Looks in a row at which a dead child must be found before it counts as left behind, and is waited for."""
_AT_THE_END = 3.0
"""Seconds that the end of the worker waits for evictions under way, at most."""


@dataclass(slots=True, kw_only=True)
class _Kept:
    """The descriptors that keep the claims of a process alive in the embedded store."""

    pulses: list[int] = field(default_factory=list)

    def let_go(self) -> None:
        """Close them."""
        while self.pulses:
            os.close(self.pulses.pop())


@dataclass(slots=True)
class _Process(_Kept):
    """A process that has sent its record."""

    greeting: Greeting
    pidfd: int | None


@dataclass(slots=True)
class _Case(_Kept):
    """A dead process whose claims are to be evicted."""

    dead: Dead
    since: float
    next_look: float
    told: set[tuple[Keeper, ...]] = field(default_factory=set)
    clean: bool = False
    """Whether the last look found no claim."""


class Watch:
    """The watch over the pool processes of a worker, on a thread of its own.

    Args:
        connect: Opens a client, when it is first needed.
        others: The pids of further children that the main process has started itself.
    """

    def __init__(self, connect: Callable[[], Client], others: Callable[[], list[int]]) -> None:
        self._connect = connect
        self._others = others
        self._client: Client | None = None
        self._greetings: socket.socket = open_channel()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll = select.poll()
        self._processes: dict[int, _Process] = {}
        self._cases: list[_Case] = []
        self._zombies: dict[int, int] = {}
        self._zombies_next = 0.0
        self._ends: float | None = None
        self._thread = threading.Thread(target=owned, args=(self._run,), name="lockkit-celery", daemon=True)
        self._receives = threading.Lock()
        """Held while descriptors come, so that no fork comes between."""
        os.register_at_fork(
            before=self._receives.acquire,
            after_in_parent=self._receives.release,
            after_in_child=self._forked,
        )

    def start(self) -> None:
        """Begin to watch. Greetings that came before wait in the socket."""
        with contextlib.suppress(RuntimeError):  # it runs already
            self._thread.start()

    def stop(self) -> None:
        """End the watch when nothing is left to evict, after 3 s at the latest."""
        self._ends = time.monotonic() + _AT_THE_END
        with contextlib.suppress(OSError):
            os.eventfd_write(self._wake, 1)
        if self._thread.is_alive():
            self._thread.join(2 * _AT_THE_END)

    def _forked(self) -> None:
        self._receives.release()
        self._let_go()

    def _let_go(self) -> None:
        """Close what keeps others' claims alive, unread messages too: in a forked child, and at the end."""
        self._greetings.close()
        for holder in (*self._processes.values(), *self._cases):
            holder.let_go()

    # -- the thread

    def _run(self) -> None:
        for one in (self._greetings.fileno(), self._wake):
            self._poll.register(one, select.POLLIN)
        try:
            while True:
                self._wait()
                self._read_greetings()
                self._notice_deaths()
                self._look_at_cases()
                self._reap()
                if self._ends is not None and (not self._cases or time.monotonic() >= self._ends):
                    return
        except Exception:
            _log.exception("locks of pool processes that die are free only after their ttl from now on")
            self._let_go()
        finally:
            if self._client is not None:
                self._client.close()

    def _wait(self) -> None:
        now = time.monotonic()
        until = min([case.next_look for case in self._cases], default=now + _ZOMBIES_EVERY)
        if self._ends is not None:
            until = min(until, self._ends, now + _SOON)
        self._poll.poll(max(0.0, until - now) * 1000.0)
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake)

    def _read_greetings(self) -> None:
        while True:
            try:
                with self._receives:
                    greeting = read_greeting(self._greetings)
                    if greeting is not None and greeting.record is None:
                        self._keep_pulses(greeting)
                        continue
            except ValueError as error:
                _log.warning("%s", error)
                continue
            if greeting is None:
                return
            assert greeting.record is not None
            former = self._processes.get(greeting.pid)
            if former is not None:  # its death has not been noticed yet, and its pid is in use again
                self._record_death(former)
            try:
                pidfd = _pidfd_of(greeting)
            except OSError as error:  # too many open files
                os.close(greeting.record)
                text = (
                    f"process {greeting.pid} cannot be watched: "
                    f"if it is killed, its locks are free after their ttl: {error}"
                )
                _log.warning("%s", printable(text))
                continue
            self._processes[greeting.pid] = process = _Process(greeting, pidfd)
            if pidfd is None:
                self._record_death(process)
            else:
                self._poll.register(pidfd, select.POLLIN)

    def _keep_pulses(self, greeting: Greeting) -> None:
        process = self._processes.get(greeting.pid)
        kept = process if process and same_start(process.greeting.started, greeting.started) else _Kept()
        kept.pulses += greeting.pulses
        if kept is not process:
            kept.let_go()

    def _notice_deaths(self) -> None:
        for process in [*self._processes.values()]:
            if process.pidfd is not None and _has_ended(process.pidfd):
                self._record_death(process)

    def _record_death(self, process: _Process) -> None:
        """Stop watching a process that has ended, and remember what it may have held."""
        greeting = process.greeting
        how = "has ended"
        if process.pidfd is not None:
            how = _how_it_ended(process.pidfd)
            self._poll.unregister(process.pidfd)
            os.close(process.pidfd)
        assert greeting.record is not None
        notes, exits = read_notes(greeting.record)
        os.close(greeting.record)
        del self._processes[greeting.pid]
        if notes:
            now = time.monotonic()
            dead = Dead(greeting.pid, greeting.started, notes, how, now, exits)
            self._cases.append(_Case(dead, now, now, pulses=process.pulses))
        else:
            process.let_go()

    # -- the claims of the dead

    def _look_at_cases(self) -> None:
        for case in [*self._cases]:
            now = time.monotonic()
            if now < case.next_look:
                continue
            try:
                left, keepers = free(self._open(), case.dead, self._own(), case.let_go)
            except LockkitError as error:
                self._tell_once(case, (), f"cannot be evicted now: {error}")
                left, keepers = 1, ()
            except Exception:
                _log.exception("the locks of process %d are free only after their ttl", case.dead.pid)
                self._close(case)
                continue
            if left and keepers and now - case.since >= _TELL_AFTER:
                who = ", ".join(map(str, keepers))
                self._tell_once(
                    case,
                    keepers,
                    "stay until their ttl is over, "
                    f"or until these processes have ended, which it may have started: {who}",
                )
            over = (not left and case.clean) or now - case.since > _GIVE_UP
            case.clean = not left
            if over:
                self._close(case)
            elif not left:
                case.next_look = now + _AGAIN
            else:
                case.next_look = now + (_SOON if keepers and now - case.since < 20 * _SOON else _LATER)

    def _close(self, case: _Case) -> None:
        self._cases.remove(case)
        case.let_go()

    def _tell_once(self, case: _Case, about: tuple[Keeper, ...], words: str) -> None:
        if about not in case.told:
            case.told.add(about)
            names = ", ".join(
                repr(name) for note in case.dead.notes for name in (*note.names, note.prefix) if name
            )
            text = f"process {case.dead.pid} {case.dead.how}; its locks ({names}) {words}"
            _log.warning("%s", printable(text))

    def _open(self) -> Client:
        if self._client is None:
            self._client = self._connect()
        return self._client

    def _own(self) -> set[int]:
        """The pids of the children that the main process has started itself."""
        return {pid for pid, one in self._processes.items() if one.greeting.pool} | {*self._others()}

    # -- processes that were left behind and have ended

    def _reap(self) -> None:
        """Wait for dead processes that a pool process left behind, whose parent is now this process."""
        now = time.monotonic()
        if now < self._zombies_next:
            return
        self._zombies_next = now + _ZOMBIES_EVERY
        seen = _zombies({*self._processes, *self._others()})
        self._zombies = {pid: self._zombies.get(pid, 0) + 1 for pid in seen}
        for pid in [pid for pid, looks in self._zombies.items() if looks >= _ZOMBIE_LOOKS]:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


# -- processes


def _zombies(besides: set[int]) -> list[int]:
    found = []
    for pid in children(os.getpid()):
        process = look_at(pid)
        if pid not in besides and process is not None and process.ended and process.parent == os.getpid():
            found.append(pid)
    return found


def _pidfd_of(greeting: Greeting) -> int | None:
    """A descriptor of exactly the process that has sent a greeting; None if that has ended."""
    try:
        pidfd = os.pidfd_open(greeting.pid)
    except ProcessLookupError:
        return None
    process = look_at(greeting.pid)
    if process is None or not same_start(process.started, greeting.started):
        os.close(pidfd)
        return None
    return pidfd


def _has_ended(pidfd: int) -> bool:
    poll = select.poll()  # select() refuses descriptors of 1024 and more
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _how_it_ended(pidfd: int) -> str:
    """How a process ended, in words; its exit status is left for Celery to read."""
    try:
        found = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    except OSError:  # Celery has read it, or it is another process's child
        return "has ended"
    if found is None:
        return "has ended"
    if found.si_code == os.CLD_EXITED:
        return f"has ended with exit code {found.si_status}"
    with contextlib.suppress(ValueError):
        return f"was killed by {signal.Signals(found.si_status).name}"
    return f"was killed by signal {found.si_status}"
