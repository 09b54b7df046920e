"""A process that runs already, held by its pidfd (pidfd_open(2)).

The kernel reuses a pid once its process has ended and was reaped. So the pidfd is opened first, and all else
is read later: if the pidfd has not ended by then, what was read under the pid is of this process.
"""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path
from types import TracebackType
from typing import Self

from lockkit.errors import ConfigError
from lockkit.gpu.pids import program_of, spaces_of, status_of
from lockkit.lib.printable import printable
from lockkit.values.identity import look_at, pid_space, user_name

__all__ = ["RunningJob"]


class RunningJob:
    """A process of this host and pid namespace, which this user may end.

    Args:
        pid: The pid of the process.
        proc: The folder ``/proc``.

    Attributes:
        pid: The pid, which no other process gets before :meth:`ended` is true.
        user: The name of its user.
        program: The name of its program, without arguments.
        started: The start of the process, in seconds since boot.

    Raises:
        ConfigError: The process does not exist, or is in another pid namespace, or another user's.
    """

    def __init__(self, pid: int, proc: Path = Path("/proc")) -> None:
        self.pid = pid
        self._descriptor = _opened(pid, proc)
        try:
            self._look(proc / str(pid), proc / "self")
        except BaseException:
            self.close()
            raise

    def _look(self, folder: Path, own: Path) -> None:
        """Read what is to be known, and check that this process may be adopted from here."""
        status, process = status_of(folder), look_at(self.pid)
        if self.ended():
            raise ConfigError(f"pid {self.pid} has ended", hint=_SEE)
        spaces = spaces_of(status)
        if not pid_space() or process is None or not spaces:
            raise ConfigError(
                f"pid {self.pid} cannot be looked at: the /proc of this process does not show it",
                hint="call this where ps shows the process",
            )
        if len(spaces) != len(spaces_of(status_of(own))):
            raise ConfigError(
                f"pid {self.pid} lives in another pid namespace, such as a container,"
                f" where it has pid {spaces[-1]}",
                hint="call this in that container, or start the job there with lockkit run --gpu",
            )
        self.user = user_name(int(status["Uid"].split()[0]))
        self.program = program_of(folder, status) or "unknown program"
        self.started = process.started
        try:
            signal.pidfd_send_signal(self._descriptor, 0)  # sends no signal: it asks whether that is allowed
        except PermissionError:
            who = "root" if self.user == "root" else f"{self.user} and root"
            raise ConfigError(f"{self} belongs to another user", hint=f"only {who} can adopt it") from None
        except ProcessLookupError:
            raise ConfigError(f"pid {self.pid} has ended", hint=_SEE) from None

    def fileno(self) -> int:
        """The pidfd, which becomes readable when the process ends."""
        return self._descriptor

    def ended(self) -> bool:
        """Whether the process has ended, with all its threads."""
        watch = select.poll()
        watch.register(self._descriptor, select.POLLIN)
        return bool(watch.poll(0))

    def close(self) -> None:
        """Close the pidfd."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __str__(self) -> str:
        return printable(f"{self.user} pid {self.pid} ({self.program})")


_SEE = "the pids on the GPUs: lockkit gpu ls"


def _opened(pid: int, proc: Path) -> int:
    """Open the pidfd of a process.

    Raises:
        ConfigError: There is no such process, or the kernel has no pidfds.
    """
    if not hasattr(os, "pidfd_open"):
        raise ConfigError("only Linux has pidfds, with which a process can be watched")
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise ConfigError(f"there is no process with pid {pid}", hint=_SEE) from None
    except OSError as error:
        leader = status_of(proc / str(pid)).get("Tgid", "")
        if leader and leader != str(pid):
            raise ConfigError(
                f"{pid} is a thread of pid {leader}", hint=f"name its process: {leader}"
            ) from error
        raise ConfigError(
            f"pid {pid} cannot be watched: pidfd_open: {error.strerror}",
            hint="it needs Linux 5.3, and in a container an engine that allows the call",
        ) from error
