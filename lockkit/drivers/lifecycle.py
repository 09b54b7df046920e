"""What happens to a client when its process ends: atexit, SIGTERM, fork."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import threading
import weakref
from types import FrameType
from typing import Protocol

from lockkit.errors import ConfigError
from lockkit.facts import Reason

__all__ = ["at_exit", "on_sigterm"]

_SIGTERM_BUDGET = 10.0
"""Seconds that releasing everything on SIGTERM may take before the process goes on to end."""
_CALLERS = ("lockkit.cli", "lockkit.decorator", "lockkit.__main__")
"""Where the user's own code, or a whole program, runs further up the stack, with nothing of ours taken."""
_INSIDE_PATIENCE = 0.2
"""Seconds for which the handler keeps the main thread from leaving a call of ours."""


class Closable(Protocol):
    """A client."""

    def release_all(self, reason: Reason) -> None:
        """Release what this process holds; bounded."""


_clients: weakref.WeakSet[Closable] = weakref.WeakSet()
_registered_by: int | None = None


def at_exit(client: Closable) -> None:
    """Release what the client holds when this process ends (not when a forked child does)."""
    global _registered_by  # noqa: PLW0603 (one registration for the process)
    _clients.add(client)
    if _registered_by != os.getpid():
        if _registered_by is None:
            atexit.register(_release_all, "exit")
        _registered_by = os.getpid()


def _release_all(reason: Reason) -> None:
    for client in list(_clients):
        with contextlib.suppress(Exception):
            client.release_all(reason)


def on_sigterm(client: Closable) -> None:
    """Release what the client holds when SIGTERM arrives, then do what SIGTERM did before.

    Python's default for SIGTERM ends the process without running any ``finally``, so every deploy would leave locks to
    their ttl. The handler of before runs afterwards; if that was the default, the process ends by the signal.

    Raises:
        ConfigError: Not called from the main thread, which alone may install handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        raise ConfigError('on_sigterm="release" needs the main thread', hint="connect there, or leave it out")
    previous = signal.getsignal(signal.SIGTERM)
    releasing = _Releasing(weakref.ref(client))

    def handle(number: int, frame: FrameType | None) -> None:
        if not releasing.over(frame):
            return  # it is not over yet; the signal comes again when it is
        if callable(previous):
            previous(number, frame)
        elif previous != signal.SIG_IGN:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGTERM, handle)


class _Releasing:
    """The release that a SIGTERM sets off, on a thread of its own and bounded.

    The handler runs between two bytecodes of the main thread. If that was in the user's code, it waits for the release,
    so that nothing runs unlocked. If it was in ours, it may have interrupted a critical section that the release needs:
    then it goes back before long, and the signal is sent once more when the release is over.
    """

    def __init__(self, client: weakref.ref[Closable]) -> None:
        self._client = client
        self._pid = 0
        self._over = threading.Event()
        self._again = False

    def over(self, frame: FrameType | None) -> bool:
        """Begin if that is not done yet, and wait."""
        if self._pid != os.getpid():
            self._pid, self._over, self._again = os.getpid(), threading.Event(), False
            threading.Thread(target=self._run, name="lockkit-sigterm", daemon=True).start()
        if not self._over.wait(_INSIDE_PATIENCE if _inside(frame) else _SIGTERM_BUDGET + 1.0):
            self._again = True
        return self._over.is_set()

    def _run(self) -> None:
        client = self._client()
        if client is not None:
            thread = threading.Thread(
                target=client.release_all, args=("sigterm",), name="lockkit-sigterm-release", daemon=True
            )
            thread.start()
            thread.join(_SIGTERM_BUDGET)
        self._over.set()
        if self._again:
            os.kill(os.getpid(), signal.SIGTERM)


def _inside(frame: FrameType | None) -> bool:
    """Whether a stack is somewhere in lockkit or a store, where critical sections are; not merely called from there."""
    while frame is not None:
        name = str(frame.f_globals.get("__name__"))
        if name.partition(".")[0].startswith("lockkit") and not name.startswith(_CALLERS):
            return True
        frame = frame.f_back
    return False
