"""Forked processes that play a part in a scenario: JSON both ways, a line at a time, and a kill -9 that is one."""

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
"""Seconds after which a child that says nothing has failed."""
_SCENARIO = 600.0
"""Seconds after which nobody will tell a child anything any more."""


class _Lines:
    """One end of the talk."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._rest = b""

    def tell(self, what: object = None) -> None:
        """Send something that JSON can say."""
        self._end.sendall(json.dumps(what).encode() + b"\n")

    def read(self, timeout: float) -> Any:
        """The next thing that was told.

        Raises:
            EOFError: The other side has ended.
            TimeoutError: It says nothing.
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
    """The parent, as its child knows it."""

    def hear(self) -> Any:
        """Wait for what it tells next, as long as a scenario may take."""
        return self.read(_SCENARIO)


class Child(_Lines):
    """A forked process that plays ``part`` and then ends without any goodbye.

    Args:
        part: Told its parent; what it returns is the last that is heard from it.
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

    def hear(self, timeout: float = _PATIENCE) -> Any:
        """The next thing that the child tells.

        Raises:
            AssertionError: It failed (with its traceback), died, or says nothing.
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
        """End it at once, with SIGKILL."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
        self.close()

    def close(self) -> None:
        """Wait for its end; if it does not come by itself, bring it about."""
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
    except OSError:  # nobody listens any more
        pass


def in_child(call: Callable[[], Any]) -> Any:
    """Return what ``call`` returns in a forked child, by way of JSON; the child ends without any cleanup."""
    child = Child(lambda _: call())
    try:
        return child.hear()
    finally:
        child.close()
