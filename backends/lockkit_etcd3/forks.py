"""gRPC and ``os.fork``: a process forks once no thread of gRPC is left in it.

gRPC runs threads of its own. A forked child lacks them, so their work stays unfinished and their locks stay
locked; the child's first call hangs, even with a deadline. With ``GRPC_ENABLE_FORK_SUPPORT`` gRPC prepares
for a fork, but not while a thread is inside a call (doc/fork_support.md in its sources), nor while its
threads end after the last channel is closed. An open stream can also leave a lock locked in the child, whose
own ``os.fork()`` then never returns (seen with 1.85).

So every call passes a gate. A fork closes it, waits for the calls inside, closes all channels and streams,
and waits until gRPC's threads have ended, some milliseconds later. The parent reconnects with its next call.
If the wait took too long, or gRPC was imported before that setting, the child's calls are refused.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from lockkit.lib.forks import Forks
from lockkit.lib.origin import Origin, this_origin
from lockkit_etcd3 import private

__all__ = ["Gate", "gate", "guard", "prepare", "trouble"]

_SWITCH = "GRPC_ENABLE_FORK_SUPPORT"
_PATIENCE = 1.0
"""Most seconds that a fork waits for each of: calls under way, calls it cut, the end of gRPC's threads."""
_LOOK = 0.001
"""Seconds between two checks of these conditions."""


class Connected(Protocol):
    """Something that has a channel or a stream of gRPC open."""

    def let_go(self) -> None:
        """Close it. It is opened again when it is needed."""


class Gate:
    """Lets calls into gRPC, but not while this process forks.

    A call first notes that it is inside, and then checks for a fork. A fork first announces itself, and then
    checks for calls inside. Ctrl-C may interrupt either at any point, so no lock outlives one fork: each fork
    makes a new bare lock for the calls that wait for it.

    Args:
        ended: Returns whether gRPC has no thread of its own left, or will keep those that it has.

    Attributes:
        torn: Whether this process was forked while gRPC was at work in its parent.
    """

    def __init__(self, ended: Callable[[], bool]) -> None:
        self.torn = False
        self._ended = ended
        self._forks: Forks | None = None
        self._connected: dict[int, weakref.ref[Connected]] = {}
        self._over: threading.Lock | None
        """Opened when the fork is over."""
        self._forget()

    def closes(self, connected: Connected) -> None:
        """Close an object's channel or stream before every fork, as long as the object exists."""
        key = id(connected)
        self._connected[key] = weakref.ref(connected, lambda _: self._connected.pop(key, None))

    def enter(self, seconds: float) -> bool:
        """Pass the gate; False if a fork kept it closed too long. Call :meth:`leave` in either case."""
        me, end = threading.current_thread(), time.monotonic() + seconds
        while True:
            self._inside[me] = True
            if self._forks is None or not self._forks.under_way():
                return True
            self.leave()
            rest = end - time.monotonic()
            if rest < 0.0:
                return False
            over = self._over
            if over is None:  # the fork is just beginning, or just over
                time.sleep(0)
            elif over.acquire(timeout=rest):
                over.release()

    def leave(self) -> None:
        """Note that the call is over."""
        self._inside.pop(threading.current_thread(), None)

    def before_fork(self) -> None:
        """Close the gate, wait for calls inside, close everything, await gRPC's threads. May be repeated."""
        self._late = True
        if self._over is None:
            over = threading.Lock()
            over.acquire()
            self._over = over
        _waited(self._empty)
        for each in list(self._connected.values()):
            connected = each()
            if connected is not None:
                connected.let_go()
        self._late = not (_waited(self._empty) and _waited(self._ended))

    def after_in_parent(self) -> None:
        """Let calls in again. May be repeated."""
        over = self._over
        with contextlib.suppress(RuntimeError):  # another thread was faster
            if over is not None:
                over.release()
        self._over = None

    def after_in_child(self) -> None:
        """Forget the calls of the parent. May be repeated."""
        self.torn = self.torn or self._late or (self._forks is not None and not self._forks.prepared())
        self._forget()

    def take_part(self) -> None:
        """Close for every fork from now on."""
        self._forks = Forks(
            before=self.before_fork, in_parent=self.after_in_parent, in_child=self.after_in_child
        )

    def _empty(self) -> bool:
        me = threading.current_thread()
        # A thread that Ctrl-C cut short on its way out is not inside when it forks, nor when it has ended.
        # (Its identifier would be that of another thread by then.)
        return not any(each.is_alive() for each in list(self._inside) if each is not me)

    def _forget(self) -> None:
        self._inside: dict[threading.Thread, bool] = {}
        self._late = False
        self._over = None


def _waited(done: Callable[[], bool]) -> bool:
    """Wait for a condition; False if it is not true in time. Polls: nothing announces the end of a thread."""
    end = time.monotonic() + _PATIENCE
    while not done():
        if time.monotonic() > end:
            return False
        time.sleep(_LOOK)
    return True


class _Here:
    """The use of gRPC by this process and its ancestors.

    Attributes:
        supported: Whether gRPC's own support for forks is on.
        seen: Whether the threads of gRPC can be seen.
        first: The first of this process and its ancestors that used gRPC; None if none has.
    """

    supported = False
    seen = False
    first: Origin | None = None


_here = _Here()


def _ended() -> bool:
    # With another library's channel open gRPC's threads stay, so gRPC's own preparations are enough.
    return not private.threads() or private.open_channels() > 0


gate = Gate(_ended)


def prepare() -> None:
    """Turn gRPC's support for forks on. Called once, before lockkit imports gRPC."""
    if "grpc" not in sys.modules:
        os.environ.setdefault(_SWITCH, "1")
    _here.supported = os.environ.get(_SWITCH, "0").lower() in {"1", "true", "yes"}


def guard(grpc: Any) -> None:
    """Close the gate before every fork. To be called once, when gRPC has been imported.

    The gate must close before gRPC's own preparations for a fork: else calls would wait for the fork, and the
    fork for them. Hooks registered last are called first, and gRPC registers its own with the first channel.
    """
    channel = grpc.insecure_channel("localhost:1")
    _here.seen = _waited(lambda: private.threads() > 0)
    channel.close()
    gate.take_part()


def trouble() -> str:
    """Why this process cannot use gRPC; empty if it can. Called before the first channel is made."""
    _here.first = _here.first or this_origin()
    if _here.first.is_here():
        return ""
    if not _here.supported:
        return f"a process forked from one that used gRPC without {_SWITCH}=1 cannot use it"
    if not _here.seen:
        return (
            "a process forked from one whose threads of gRPC cannot be seen (is /proc mounted?) cannot use it"
        )
    return "this process was forked while gRPC was at work in its parent" if gate.torn else ""
