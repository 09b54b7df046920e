"""Forked children of a scenario: parent and child exchange lines of JSON; SIGKILL ends the child."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any

__all__ = ["Child", "Parent", "in_child"]

_PATIENCE = 30.0
"""Seconds after which a child that sends nothing has failed."""
_SCENARIO = 600.0
"""Seconds for which a child waits for its parent: longer than any scenario lasts."""


class _Lines:
    """One end of the exchange."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._rest = b""

    def tell(self, what: object = None) -> None:
        """Send a value that can be written as JSON."""
        self._end.sendall(json.dumps(what).encode() + b"\n")

    def read(self, timeout: float) -> Any:
        """The next value that the other side sent.

        Raises:
            EOFError: The other side has ended.
            TimeoutError: The other side sends nothing.
        """
        until = time.monotonic() + timeout
        while b"\n" not in self._rest:
            if not select.select([self._end], [], [], max(until - time.monotonic(), 0.0))[0]:
                raise TimeoutError(f"nothing heard for {timeout:g} s")
            block = self._end.recv(65_536)
            if not block:
                raise EOFError
            self._rest += block
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)


class Parent(_Lines):
    """The child's end: receives from the parent, and sends to it."""

    def hear(self) -> Any:
        """Wait for the next value from the parent, as long as a scenario may last."""
        return self.read(_SCENARIO)


class Child(_Lines):
    """A forked process that runs ``part`` and then ends without any cleanup.

    Args:
        part: Gets the :class:`Parent`. Its return value is the last value that the child sends.
    """

    def __init__(self, part: Callable[[Parent], Any]) -> None:
        mine, its = socket.socketpair()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is the point
            self.pid = os.fork()
        if self.pid == 0:
            try:
                mine.close()
                _play(part, Parent(its))
            finally:
                os._exit(0)
        its.close()
        super().__init__(mine)

    def tell(self, what: object = None) -> None:
        """Send a value that can be written as JSON.

        Raises:
            AssertionError: The child has ended; if it failed, the message has its traceback.
        """
        try:
            super().tell(what)
        except (BrokenPipeError, ConnectionResetError):
            raise AssertionError(f"the child {self.pid} has ended, and said last: {self.hear()!r}") from None

    def hear(self, timeout: float = _PATIENCE) -> Any:
        """The next value from the child.

        Raises:
            AssertionError: The child failed (the message has its traceback), died, or sends nothing.
        """
        try:
            said = self.read(timeout)
        except EOFError:
            raise AssertionError(f"the child {self.pid} died") from None
        except TimeoutError as error:
            raise AssertionError(f"the child {self.pid}: {error}") from None
        if isinstance(said, dict) and _FAILED in said:
            raise AssertionError(f"in the child: {said[_FAILED]}")
        return said

    def kill(self) -> None:
        """End the child at once, with SIGKILL."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
        self.close()

    def close(self) -> None:
        """Wait until the child ends; kill it if it does not end by itself."""
        if not self.pid:
            return
        self._end.close()
        until = time.monotonic() + 1.0
        while os.waitpid(self.pid, os.WNOHANG)[0] == 0:
            if time.monotonic() > until:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                break
            time.sleep(0.002)
        self.pid = 0


_FAILED = "the child failed"


def _play(part: Callable[[Parent], Any], parent: Parent) -> None:
    try:
        last = part(parent)
    except BaseException:
        last = {_FAILED: traceback.format_exc()}
    try:
        parent.tell(last)
    except OSError:  # the parent has closed its end
        pass


def in_child(call: Callable[[], Any], *, same_pid: bool = False) -> Any:
    """Call a function in a forked child, and return its result (via JSON). The child ends without cleanup.

    Args:
        call: The function.
        same_pid: Whether ``os.getpid()`` returns the parent's pid in the child, as in the first process
            of a new pid namespace (pid_namespaces(7)) whose parent is the first process of its own.
    """
    asked, pid = os.getpid, os.getpid()
    if same_pid:
        os.getpid = lambda: pid
    try:
        child = Child(lambda _: call())
    finally:
        os.getpid = asked
    try:
        return child.hear()
    finally:
        child.close()
