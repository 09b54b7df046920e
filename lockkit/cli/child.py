"""The guarded command as a process: found, started, and stopped together with everything it started.

``subprocess`` is not used. Between fork and exec the child must take the terminal and ask for its parent's
death signal, which would need ``preexec_fn``: Python code after a fork in a threaded process. And ``Popen``
does not report stopped children. So this module forks by itself, and what runs between fork and exec is
short and prepared: no import, no logging, no lock, no garbage collection.

About prctl(2): the death signal is sent when the *thread* that forked ends, so only the main thread may
start a child. The setting survives the exec, except of a set-uid program (sudo). A parent that died before
the call sends no signal, so the child checks whether its parent is still the same.
"""

from __future__ import annotations

import errno
import gc
import os
import signal
import stat
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

from lockkit.cli import exits
from lockkit.cli.terminal import Terminal
from lockkit.lib.descent import descendants
from lockkit.lib.forks import executing
from lockkit.lib.namedtuples import NamedTuple
from lockkit.observe.survivors import survivors

__all__ = ["Child", "dies_with", "find", "forked", "prctl", "spawn"]

_PR_SET_PDEATHSIG = 1
_SOON = 0.05
"""Seconds between two looks at what was killed."""
_RESTORED = (signal.SIGPIPE, signal.SIGXFSZ)  # ignored by Python, default for everybody else


class Child(NamedTuple):
    """A started command.

    Attributes:
        pid: The pid of the command.
        group: The process group of the command if it leads one of its own.
        claims: The claim ids of the leases that it works under.
        session: The session of the ``run`` that started it.
    """

    pid: int
    group: int | None
    claims: Sequence[str] = ()
    session: int = 0

    def signal(self, number: int) -> None:
        """Send a signal to the command's group, or to the command alone if it is in the wrapper's group."""
        try:
            if self.group is None:
                os.kill(self.pid, number)
            else:
                os.killpg(self.group, number)
        except (ProcessLookupError, PermissionError):
            return  # the command has ended, or runs as another user (sudo): only the terminal can signal it

    def kill(self, *, daemons: bool = True) -> None:
        """Kill the command, its group, its descendants, and its rest in the session. Only before reaping.

        Args:
            daemons: Whether to kill descendants in sessions of their own, too.
        """
        family = [pid for pid in descendants(self.pid) if daemons or _session_of(pid) == self.session]
        self.signal(signal.SIGKILL)
        for pid in family:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        self.kill_left()

    def kill_left(self) -> None:
        """Kill all processes of the session that were started under one of the claims.

        After the command's end they are nobody's descendants, and not all are in its group: in a pipeline on
        a terminal the command leads none, and ``timeout``, shells with job control and ``run --nested reuse``
        make further ones. A daemon has a session of its own.
        """
        killed: set[int] = set()
        while left := self.left() - killed:  # what was forked during a look is seen by the next
            for pid in left:
                Child(pid, None).signal(signal.SIGKILL)
            killed |= left

    def outlast(self) -> None:
        """Wait until the processes that :meth:`kill_left` kills are dead."""
        while self.left():
            time.sleep(_SOON)

    def left(self) -> set[int]:
        """The living processes of the session that were started under one of the claims."""
        found = (each.pid for claim in self.claims for each in survivors(claim))
        return {pid for pid in found if _session_of(pid) == self.session}


def find(program: str, environ: Mapping[str, str]) -> str:
    """The file of a command's first word, as execvp(3) finds it.

    Called before the lock is acquired, so that a typing error is reported at once.

    Raises:
        CommandFailed: 127 if there is no such file, 126 if it cannot be executed.
    """
    candidates = [program] if "/" in program else [f"{folder or '.'}/{program}" for folder in _path(environ)]
    refused: str | None = None
    for path in candidates:
        try:
            mode = Path(path).stat().st_mode
        except OSError as error:
            refused = path if error.errno == errno.EACCES else refused
            continue
        if stat.S_ISREG(mode) and os.access(path, os.X_OK):
            return path
        refused = refused or path
    if refused is not None:
        raise exits.CommandFailed(
            f"cannot execute {refused}: {_obstacle(refused)}",
            code=exits.CANNOT_EXECUTE,
            kind="cannot_execute",
            hint=None
            if Path(refused).is_dir()
            else "chmod +x makes a file executable; or name its interpreter first",
        )
    raise exits.CommandFailed(
        f"command not found: {program}",
        code=exits.NOT_FOUND,
        kind="not_found",
        hint="aliases and shell built-ins need a shell: -- sh -c '...'" if "/" not in program else None,
    )


def spawn(
    path: str,
    command: Sequence[str],
    environ: Mapping[str, str],
    *,
    keep: Sequence[int] = (),
    terminal: Terminal,
    handled: Sequence[int] = (),
    begins: Callable[[], None] = lambda: None,
    claims: Sequence[str] = (),
) -> Child:
    """Start a command.

    Args:
        path: The file, from :func:`find`.
        command: The words of the command; the first is its name for itself.
        environ: The whole environment of the command.
        keep: Descriptors that the command and its descendants inherit, and that keep the claim alive.
        terminal: The terminal, which decides on the process group and is handed over to it.
        handled: Signals that this process handles, and whose handling the command must not inherit.
        begins: Called in the process of the command, just before the command begins.
        claims: The claim ids of the leases that the command works under, as its environment names them.

    Raises:
        CommandFailed: The exec failed; 126 or 127.
    """
    read, write = os.pipe()
    start = _Start(
        path=path,
        argv=[os.fsencode(word) for word in command],
        env={os.fsencode(key): os.fsencode(value) for key, value in environ.items()},
        parent=os.getpid(),
        kept=[*keep],
        defaults=[*handled, *_RESTORED],
        own_group=terminal.own_group,
        foreground=terminal.foreground,
        begins=begins,
    )
    try:
        pid = forked(partial(start.exec, write))
    finally:
        os.close(write)
    try:
        told = _read_all(read)
    finally:
        os.close(read)
    if told:
        os.waitpid(pid, 0)
        terminal.take_back(pid)
        _raise_exec(path, int(told))
    return Child(pid, pid if terminal.own_group else None, claims, os.getsid(0))


def forked(work: Callable[[set[int]], NoReturn]) -> int:
    """Fork, and return the pid of the child, which does some work that ends it.

    The work must use nothing that needs a lock or an import, since a thread of the parent may have been in
    the middle of it. It runs with all signals blocked and without garbage collection, and gets the signals
    that were blocked before.

    Raises:
        CommandFailed: The system allows no further process; 126.
    """
    assert threading.current_thread() is threading.main_thread(), (
        "the death signal is tied to the thread that forks"
    )
    collecting = gc.isenabled()
    gc.disable()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        with executing(), warnings.catch_warnings():
            # Python warns of forks in threaded processes, for the reasons in this module's docstring.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            work(mask)
    except OSError as error:
        raise exits.CommandFailed(
            f"cannot start one more process: {error.strerror}",
            code=exits.CANNOT_EXECUTE,
            kind="cannot_execute",
            hint="see ulimit -u, and pids.max of the cgroup",
        ) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if collecting:
            gc.enable()
    return pid


def dies_with(parent: int) -> None:
    """In a child: end now if the parent has ended, and by SIGKILL when it ends."""
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(exits.INTERNAL)


class _Start(NamedTuple):
    """Everything that the child needs between fork and exec, prepared before the fork."""

    path: str
    argv: list[bytes]
    env: dict[bytes, bytes]
    parent: int
    kept: list[int]
    defaults: list[int]
    own_group: bool
    foreground: int | None
    begins: Callable[[], None]

    def exec(self, write: int, mask: set[int]) -> NoReturn:
        """Execute the command with this mask of signals; on failure write the errno and exit."""
        try:
            signal.set_wakeup_fd(-1)
            for number in self.defaults:
                signal.signal(number, signal.SIG_DFL)
            if self.own_group:
                os.setpgid(0, 0)
                if self.foreground is not None:
                    os.tcsetpgrp(self.foreground, os.getpid())  # SIGTTOU is blocked here
            dies_with(self.parent)
            for descriptor in self.kept:
                os.set_inheritable(descriptor, True)
            self.begins()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            os.execve(self.path, self.argv, self.env)  # noqa: S606 (no shell is the point)
        except OSError as error:
            os.write(write, str(error.errno).encode())
        finally:
            os._exit(exits.CANNOT_EXECUTE)


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None  # it has ended


def _raise_exec(path: str, number: int) -> None:
    why = os.strerror(number)
    if number == errno.ENOENT:
        missing = "its interpreter (the #! line) is missing" if Path(path).exists() else why
        raise exits.CommandFailed(f"cannot find {path}: {missing}", code=exits.NOT_FOUND, kind="not_found")
    hint = "a script needs a first line such as #!/bin/sh" if number == errno.ENOEXEC else None
    raise exits.CommandFailed(
        f"cannot execute {path}: {why}", code=exits.CANNOT_EXECUTE, kind="cannot_execute", hint=hint
    )


def _read_all(descriptor: int) -> bytes:
    data = b""
    while chunk := os.read(descriptor, 64):
        data += chunk
    return data


def _path(environ: Mapping[str, str]) -> list[str]:
    return environ.get("PATH", os.defpath).split(os.pathsep)


def _obstacle(path: str) -> str:
    return "it is a folder" if Path(path).is_dir() else "permission denied"


def _prctl() -> Callable[..., int] | None:
    if sys.platform != "linux":
        return None
    try:  # as ctypes does it; the 33 classes that ctypes makes at its import take 2 of 100 ms
        import _ctypes

        address = _ctypes.dlsym(_ctypes.dlopen(None, os.RTLD_NOW), "prctl")  # type: ignore[arg-type]  # None is the program itself
        return partial(_call, _ctypes.call_cdeclfunction, address)
    except (ImportError, AttributeError):  # another Python
        import ctypes

        function: Callable[..., int] = ctypes.CDLL(None).prctl
        return function


def _call(call: Callable[[int, tuple[int, ...]], int], address: int, *arguments: int) -> int:
    return call(address, arguments)


prctl = _prctl()  # now: when the command is started, no descriptor may be left to load a library with
"""The system call prctl(2); None where there is none."""
