"""What happens to a client when its process ends: atexit, SIGTERM, fork."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import threading
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Protocol

from lockkit.errors import ConfigError
from lockkit.facts import Reason

__all__ = ["at_exit", "on_sigterm"]

_SIGTERM_BUDGET = 10.0
"""Seconds that releasing everything on SIGTERM may take before the process goes on to end."""


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
    reference = weakref.ref(client)

    def handle(number: int, frame: FrameType | None) -> None:
        alive = reference()
        if alive is not None:
            _bounded(lambda: alive.release_all("sigterm"))
        if callable(previous):
            previous(number, frame)
        elif previous != signal.SIG_IGN:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGTERM, handle)


def _bounded(work: Callable[[], None]) -> None:
    """Run it on a thread of its own and wait, bounded.

    The handler runs between two bytecodes of the main thread, which may be inside a critical section of ours: a thread
    of its own can at worst run into its budget there, where the main thread itself would wait for ever.
    """
    thread = threading.Thread(target=work, name="lockkit-sigterm", daemon=True)
    thread.start()
    thread.join(_SIGTERM_BUDGET)
