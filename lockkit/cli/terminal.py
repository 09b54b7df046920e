"""The terminal of ``lockkit run``: which process group is in the foreground (job control, tcsetpgrp(3)).

The command gets a process group of its own, which is the foreground group of the terminal, like a job of a
shell. So it may read keys (pdb, ``python -i``, vi), and Ctrl-C and Ctrl-Z reach it and not the wrapper. In a
pipeline (``lockkit run ... | less``) the rest uses the terminal as well, so the command stays in the group of
the pipeline, as it would without lockkit.
"""

from __future__ import annotations

import os
import select
import signal
import stat

__all__ = ["Terminal", "gone"]


def gone() -> bool:
    """Whether the terminal on standard input or output is gone. Not every process on it gets a SIGHUP."""
    streams = select.poll()
    for descriptor in (0, 1):
        streams.register(descriptor, 0)  # errors and hang-ups are reported whatever is asked for
    return bool(streams.poll(0))


class Terminal:
    """The controlling terminal of this process, if there is one.

    Attributes:
        own_group: Whether the command shall lead a process group of its own.
        foreground: Descriptor of the terminal that the group shall get; None if there is none.
    """

    def __init__(self) -> None:
        self._tty = _open()
        self._group = os.getpgrp()
        shared = self._ours() and any(map(_is_pipe, (0, 1, 2)))
        self.own_group = not shared
        self.foreground = self._tty if self.own_group and self._ours() else None

    @property
    def present(self) -> bool:
        """Whether there is a terminal, so that this process can be stopped and continued."""
        return self._tty is not None

    def has_it(self, group: int) -> bool:
        """Whether a process group is in the foreground."""
        return self._tty is not None and _foreground(self._tty) == group

    def give(self, group: int) -> None:
        """Make a group the foreground group, if this process is in the foreground."""
        if self._ours():
            self._set(group)

    def take_back(self, group: int) -> None:
        """Make this process's group the foreground group again, if the command's group is, even if ended."""
        if self.has_it(group):
            self._set(self._group)

    def stop(self, *, alone: bool = False) -> None:
        """Stop this process group (``alone``: only this process), like a job; return when it is continued.

        If the shell of this process group is gone (POSIX: an orphaned process group), nothing could continue
        it. Then the kernel drops the signal, and this returns at once.
        """
        old = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        try:
            # The kernel delivers a signal to the main thread first, which runs this code. So the process is
            # stopped before this call returns.
            if alone:
                os.kill(os.getpid(), signal.SIGTSTP)
            else:
                os.killpg(self._group, signal.SIGTSTP)
        finally:
            signal.signal(signal.SIGTSTP, old)

    def close(self) -> None:
        if self._tty is not None:
            os.close(self._tty)
            self._tty = None

    def _ours(self) -> bool:
        return self._tty is not None and _foreground(self._tty) == self._group

    def _set(self, group: int) -> None:
        assert self._tty is not None
        # SIGTTOU would stop a background group that sets the foreground group.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        try:
            os.tcsetpgrp(self._tty, group)
        except OSError:
            return  # the terminal hung up, or the group has ended
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _open() -> int | None:
    try:
        return os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        return None


def _foreground(tty: int) -> int | None:
    try:
        return os.tcgetpgrp(tty)
    except OSError:
        return None


def _is_pipe(descriptor: int) -> bool:
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
