"""gRPC and ``os.fork``: everything of gRPC is closed before a fork, and opened again after it.

gRPC runs threads, which a forked child does not have. With ``GRPC_ENABLE_FORK_SUPPORT`` it puts itself in order around
a fork, but only if no thread is inside a call of its at that moment (doc/fork_support.md in its sources): else a child's
own calls hang for ever, deadlines or not. And a stream that is open then can leave a lock locked for ever in the child,
whose very ``os.fork()`` does not return (seen with 1.85). So every call passes a gate; a fork closes it, waits for those
inside, and has every channel and stream closed. The parent connects again with its next call.

Where gRPC was imported before without that setting, a child is refused.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from typing import Any, Protocol

__all__ = ["Gate", "gate", "guard", "prepare", "trouble"]

_SWITCH = "GRPC_ENABLE_FORK_SUPPORT"
_PATIENCE = 1.0
"""Seconds for which a fork waits for calls under way, before it cuts them, and again for what was cut."""
_SETTLING = 0.05
"""Seconds that gRPC's own threads have to be done with what was closed. Without, one child in forty hung in its first
channel while three threads made calls without a pause; with it none of 500."""


class Connected(Protocol):
    """What has something of gRPC open."""

    def let_go(self) -> None:
        """Close it, so that it is opened again when it is needed."""


class Gate:
    """Lets calls into gRPC, but not while this process forks.

    Attributes:
        torn: This process was forked while its parent had a call under way.
    """

    def __init__(self) -> None:
        self._connected: weakref.WeakSet[Connected] = weakref.WeakSet()
        self.torn = False
        self._forget()

    def closes(self, connected: Connected) -> None:
        """Have this closed before every fork."""
        with self._change:
            self._connected.add(connected)

    def enter(self, seconds: float) -> bool:
        """Whether it could be passed within so many seconds. Then :meth:`leave` must follow."""
        with self._change:
            if self._forks and not self._change.wait_for(lambda: not self._forks, seconds):
                return False
            self._inside += 1
            return True

    def leave(self) -> None:
        """Out again."""
        with self._change:
            self._inside -= 1
            if self._forks:
                self._change.notify_all()

    def before_fork(self) -> None:
        """Let nobody in, wait until nobody is in, and have everything closed."""
        with self._change:
            self._forks += 1
            self._change.wait_for(lambda: not self._inside, _PATIENCE)
            connected = list(self._connected)
        for each in connected:
            each.let_go()
        time.sleep(_SETTLING)
        with self._change:
            self._late = not self._change.wait_for(lambda: not self._inside, _PATIENCE)

    def after_in_parent(self) -> None:
        """Go on."""
        with self._change:
            self._forks -= 1
            self._change.notify_all()

    def after_in_child(self) -> None:
        """Nobody is in: they were the parent's."""
        self.torn = self.torn or self._late
        self._forget()

    def _forget(self) -> None:
        self._change = threading.Condition()  # re-entrant: a signal handler may fork
        self._inside = self._forks = 0
        self._late = False


class _Here:
    """What is known of this process.

    Attributes:
        supported: gRPC puts itself in order around a fork.
        first: The process that used it first, of those that this one descends from; 0: none has.
    """

    supported = False
    first = 0


gate = Gate()
_here = _Here()


def prepare() -> None:
    """To be called once, before gRPC is imported by this library."""
    if "grpc" not in sys.modules:
        os.environ.setdefault(_SWITCH, "1")
    _here.supported = os.environ.get(_SWITCH, "0").lower() in {"1", "true", "yes"}


def guard(grpc: Any) -> None:
    """To be called once, when it has been imported: have the gate closed before gRPC's own preparations for a fork.

    What is registered last is called first, and gRPC registers its own with the first channel. The other way round its
    calls would wait for the fork, and the fork for them.
    """
    grpc.insecure_channel("localhost:1").close()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=gate.before_fork,
            after_in_parent=gate.after_in_parent,
            after_in_child=gate.after_in_child,
        )


def trouble() -> str:
    """Why this process cannot use gRPC, or nothing. To be called before it makes its first channel."""
    here = os.getpid()
    _here.first = _here.first or here
    if _here.first == here:
        return ""
    if not _here.supported:
        return f"a process forked from one that used gRPC without {_SWITCH}=1 cannot use it"
    return "this process was forked while gRPC was in the middle of a call" if gate.torn else ""
