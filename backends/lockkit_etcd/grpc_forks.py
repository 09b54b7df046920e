"""gRPC and ``os.fork``: what has to be held still so that a child can have connections of its own.

gRPC runs threads, which a forked child does not have. With ``GRPC_ENABLE_FORK_SUPPORT`` it puts itself in order around
a fork, but only if no thread is inside a call of its at that moment; else a child's own calls hang for ever, deadlines
or not (doc/fork_support.md in its sources). So every call passes a gate, which a fork closes first. Where that came too
late, or gRPC was imported before without that setting, a child is refused. While a watch is open a fork takes about a
second: that is gRPC's own.
"""

from __future__ import annotations

import os
import sys
import threading

__all__ = ["Gate", "gate", "prepare", "trouble"]

_SWITCH = "GRPC_ENABLE_FORK_SUPPORT"
_PATIENCE = 2.5
"""Seconds for which a fork waits for the calls under way: a little longer than one may take."""


class Gate:
    """Lets calls into gRPC, but not while this process forks.

    Attributes:
        torn: This process was forked while its parent had a call under way.
    """

    def __init__(self) -> None:
        self.torn = False
        self._forget()

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
        """Let nobody in, and wait until nobody is in."""
        with self._change:
            self._forks += 1
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
        self._change = threading.Condition(threading.Lock())
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
    """To be called before gRPC is imported by this library, once."""
    if "grpc" not in sys.modules:
        os.environ.setdefault(_SWITCH, "1")
    _here.supported = os.environ.get(_SWITCH, "0").lower() in {"1", "t", "true", "y", "yes"}
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
