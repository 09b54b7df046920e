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

from lockkit.forks import Forks

__all__ = ["Gate", "gate", "guard", "prepare", "trouble"]

_SWITCH = "GRPC_ENABLE_FORK_SUPPORT"
_PATIENCE = 1.0
"""Seconds for which a fork waits for calls under way, before it cuts them, and again for what was cut."""
_MOMENT = 0.001
_SETTLING = 0.05
"""Seconds that gRPC's own threads have to be done with what was closed. Without, one child in forty hung in its first
channel while three threads made calls without a pause; with it none of 500."""


class Connected(Protocol):
    """What has something of gRPC open."""

    def let_go(self) -> None:
        """Close it, so that it is opened again when it is needed."""


class Gate:
    """Lets calls into gRPC, but not while this process forks.

    It has no locks, which Ctrl-C could leave locked: who enters says so, then looks whether somebody forks; who forks says
    so, then looks whether somebody is inside.

    Attributes:
        torn: This process was forked while its parent had a call under way.
    """

    def __init__(self) -> None:
        self.torn = False
        self._forks: Forks | None = None
        self._connected: dict[int, weakref.ref[Connected]] = {}
        self._forget()

    def closes(self, connected: Connected) -> None:
        """Have this closed before every fork."""
        key = id(connected)
        self._connected[key] = weakref.ref(connected, lambda _: self._connected.pop(key, None))

    def enter(self, seconds: float) -> bool:
        """Whether it could be passed within so many seconds. :meth:`leave` must follow in any case, and may twice."""
        me, end = threading.get_ident(), time.monotonic() + seconds
        while True:
            self._inside[me] = True
            if self._forks is None or not self._forks.under_way():
                return True
            self._inside.pop(me, None)
            if time.monotonic() > end:
                return False
            time.sleep(_MOMENT)

    def leave(self) -> None:
        """Out again."""
        self._inside.pop(threading.get_ident(), None)

    def before_fork(self) -> None:
        """Let nobody in, wait until nobody is in, and have everything closed."""
        self._late = True
        self._empty()
        for each in list(self._connected.values()):
            connected = each()
            if connected is not None:
                connected.let_go()
        self._late = not self._empty()
        time.sleep(_SETTLING)

    def after_in_child(self) -> None:
        """Forget the calls under way: they were the parent's. May be repeated."""
        self.torn = self.torn or self._late or (self._forks is not None and not self._forks.prepared())
        self._forget()

    def take_part(self) -> None:
        """Be closed for every fork from now on."""
        self._forks = Forks(before=self.before_fork, in_child=self.after_in_child)

    def _empty(self) -> bool:
        """Whether nobody is inside, or soon is not."""
        me, end = threading.get_ident(), time.monotonic() + _PATIENCE
        # Who was cut short by Ctrl-C on its way out is not inside when it forks, or when its thread has ended.
        while any(each != me for each in self._inside.keys() & sys._current_frames().keys()):  # noqa: SLF001
            if time.monotonic() > end:
                return False
            time.sleep(_MOMENT)
        return True

    def _forget(self) -> None:
        self._inside: dict[int, bool] = {}
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
    gate.take_part()


def trouble() -> str:
    """Why this process cannot use gRPC, or nothing. To be called before it makes its first channel."""
    here = os.getpid()
    _here.first = _here.first or here
    if _here.first == here:
        return ""
    if not _here.supported:
        return f"a process forked from one that used gRPC without {_SWITCH}=1 cannot use it"
    return "this process was forked while gRPC was in the middle of a call" if gate.torn else ""
