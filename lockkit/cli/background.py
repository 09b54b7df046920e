"""A command that goes on in the background once it has succeeded: ``--detach``."""

from __future__ import annotations

import os
import signal
import stat
import sys

from lockkit.cli import exits

__all__ = ["Front"]


class Front:
    """A fork of this process, before it has threads: the child works, the parent waits for the user.

    The child belongs to the parent's process group until :meth:`leave`, so that Ctrl-C reaches it.

    Attributes:
        keeper: The pid of the child in the parent; 0 in the child.
    """

    def __init__(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self._read, self._write = os.pipe()
        self.keeper = os.fork()
        os.close(self._write if self.keeper else self._read)

    def wait(self) -> int:
        """Wait until the child has left, or has ended. Returns the exit code."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the child gets it too, and says so
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, _: os.kill(self.keeper, number))
        if os.read(self._read, 1):
            return exits.OK
        code = os.waitstatus_to_exitcode(os.waitpid(self.keeper, 0)[1])
        return code if code >= 0 else 128 - code

    def leave(self) -> None:
        """Go on without the parent and its terminal. Streams that go to a file stay as they are."""
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            if stream == 0 or not stat.S_ISREG(os.fstat(stream).st_mode):
                os.dup2(nowhere, stream)
        os.close(nowhere)
        os.write(self._write, b"1")
        os.close(self._write)
