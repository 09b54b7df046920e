"""gRPC and ``os.fork``: a process forks once no thread of gRPC is left in it.

gRPC runs threads of its own. A forked child does not have them: what they were in the middle of stays as it is there for
ever, locks that they held too, and the child's first call hangs, deadlines or not. With ``GRPC_ENABLE_FORK_SUPPORT``
gRPC puts itself in order around a fork, but not while a thread is inside a call (doc/fork_support.md in its sources), nor
while it ends its own threads, which begins when the last channel is closed. A stream that is open can leave a lock locked
in the child as well, whose own ``os.fork()`` then does not return (seen with 1.85).

So every call passes a gate. A fork closes the gate, waits for the calls inside, closes every channel and stream, and waits
until gRPC's threads have ended, some milliseconds later. The parent connects again with its next call. Where that
could not be waited for, a child is refused gRPC; likewise where gRPC was imported before without that setting.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Protocol

from lockkit.forks import Forks
from lockkit_etcd3 import private

__all__ = ["Gate", "gate", "guard", "prepare", "trouble"]

_SWITCH = "GRPC_ENABLE_FORK_SUPPORT"
_PATIENCE = 1.0
"""Seconds that a fork waits, at most, for each of: calls under way, calls that it has cut, the end of gRPC's threads."""


class Connected(Protocol):
    """Something that has a channel or a stream of gRPC open."""

    def let_go(self) -> None:
        """Close it. It is opened again when it is needed."""


class Gate:
    """Lets calls into gRPC, but not while this process forks.

    A call first says that it is inside, then looks whether there is a fork; a fork first says that it has begun, then looks whether
    a call is inside. Ctrl-C may strike anywhere. So nothing that lasts is locked here: what a fork waits for, and what waits for a
    fork, is a bare lock of that fork alone.

    Args:
        ended: Whether gRPC has no thread of its own left, or will keep those it has.

    Attributes:
        torn: This process was forked while gRPC was at work in its parent.
    """

    def __init__(self, ended: Callable[[], bool]) -> None:
        self.torn = False
        self._ended = ended
        self._forks: Forks | None = None
        self._connected: dict[int, weakref.ref[Connected]] = {}
        self._left: threading.Lock | None
        """Opened whenever a call leaves while a fork waits."""
        self._over: threading.Lock | None
        """Opened when the fork is over."""
        self._forget()

    def closes(self, connected: Connected) -> None:
        """Close something before every fork, as long as it exists."""
        key = id(connected)
        self._connected[key] = weakref.ref(connected, lambda _: self._connected.pop(key, None))

    def enter(self, seconds: float) -> bool:
        """Pass the gate; False if that took longer. :meth:`leave` must follow in any case, and may be called twice."""
        me, end = threading.get_ident(), time.monotonic() + seconds
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
        """Say that the call is over."""
        self._inside.pop(threading.get_ident(), None)
        _open(self._left)

    def before_fork(self) -> None:
        """Let no call in, wait for those inside, close everything, and wait for the end of gRPC's threads. May be repeated."""
        self._late = True
        if self._over is None:
            self._left, self._over = _shut(), _shut()
        self._wait_until_empty()
        for each in list(self._connected.values()):
            connected = each()
            if connected is not None:
                connected.let_go()
        self._late = not (self._wait_until_empty() and _waited(self._ended))

    def after_in_parent(self) -> None:
        """Let calls in again. May be repeated."""
        _open(self._over)
        self._over = self._left = None

    def after_in_child(self) -> None:
        """Forget the calls of the parent. May be repeated."""
        self.torn = self.torn or self._late or (self._forks is not None and not self._forks.prepared())
        self._forget()

    def take_part(self) -> None:
        """Close for every fork from now on."""
        self._forks = Forks(
            before=self.before_fork, in_parent=self.after_in_parent, in_child=self.after_in_child
        )

    def _wait_until_empty(self) -> bool:
        end = time.monotonic() + _PATIENCE
        while not self._empty():
            rest = end - time.monotonic()
            if rest < 0.0 or self._left is None:
                return False
            self._left.acquire(timeout=rest)
        return True

    def _empty(self) -> bool:
        me = threading.get_ident()
        # A thread that Ctrl-C cut short on its way out is not inside when it forks, nor when it has ended.
        return all(each == me for each in self._inside.keys() & sys._current_frames().keys())  # noqa: SLF001

    def _forget(self) -> None:
        self._inside: dict[int, bool] = {}
        self._late = False
        self._left = self._over = None


def _shut() -> threading.Lock:
    """A lock that is taken."""
    lock = threading.Lock()
    lock.acquire()
    return lock


def _open(lock: threading.Lock | None) -> None:
    """Release a lock, if it is taken."""
    try:
        if lock is not None:
            lock.release()
    except RuntimeError:  # another thread was faster
        pass


def _waited(done: Callable[[], bool]) -> bool:
    """Wait for something that nobody announces; False if it has not come in time. A look takes longer than a pause would."""
    end = time.monotonic() + _PATIENCE
    while not done():
        if time.monotonic() > end:
            return False
    return True


class _Here:
    """The use of gRPC by this process and its ancestors.

    Attributes:
        supported: gRPC puts itself in order around a fork.
        seen: The threads of gRPC can be seen.
        first: The first of this process and its ancestors that used gRPC; 0: none has.
    """

    supported = False
    seen = False
    first = 0


_here = _Here()


def _ended() -> bool:
    # Another library's channel keeps gRPC's threads. They end nothing then, so gRPC's own preparations are enough.
    return not private.threads() or private.open_channels() > 0


gate = Gate(_ended)


def prepare() -> None:
    """Have gRPC prepare for forks. To be called once, before it is imported by this library."""
    if "grpc" not in sys.modules:
        os.environ.setdefault(_SWITCH, "1")
    _here.supported = os.environ.get(_SWITCH, "0").lower() in {"1", "true", "yes"}


def guard(grpc: Any) -> None:
    """Close the gate before every fork. To be called once, when gRPC has been imported.

    The gate must close before gRPC's own preparations for a fork: else calls would wait for the fork, and the fork for them.
    Hooks that are registered last are called first, and gRPC registers its own with the first channel.
    """
    channel = grpc.insecure_channel("localhost:1")
    _here.seen = _waited(lambda: private.threads() > 0)
    channel.close()
    gate.take_part()


def trouble() -> str:
    """Why this process cannot use gRPC, or nothing. To be called before it makes its first channel."""
    here = os.getpid()
    _here.first = _here.first or here
    if _here.first == here:
        return ""
    if not _here.supported:
        return f"a process forked from one that used gRPC without {_SWITCH}=1 cannot use it"
    if not _here.seen:
        return (
            "a process forked from one whose threads of gRPC cannot be seen (is /proc mounted?) cannot use it"
        )
    return "this process was forked while gRPC was at work in its parent" if gate.torn else ""
