"""Calls into gRPC on threads that no signal strikes.

CPython runs signal handlers in the main thread. gRPC's channels and calls are guarded by locks of Python code (``threading.Condition``).
If a handler raises there, as on Ctrl-C, a lock may stay taken, and every later call on the channel hangs, in whatever thread. So the
main thread has its calls made by another thread, and a handler strikes while it waits.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

from lockkit.store.starting import start

__all__ = ["ended", "unstruck"]

T = TypeVar("T")


def unstruck(call: Callable[[], T], seconds: float) -> T:
    """Make a call on a thread that no signal strikes. Cut short by a signal, the call goes on to its end there.

    Args:
        call: Ends by itself, if gRPC works.
        seconds: When to wait no longer.

    Raises:
        TimeoutError: The call hangs.
        Exception: Whatever the call raises.
    """
    if threading.current_thread() is not threading.main_thread():
        return call()
    answers: list[T] = []
    errors: list[BaseException] = []
    done = threading.Lock()
    done.acquire()

    def make() -> None:
        try:
            answers.append(call())
        except BaseException as error:
            errors.append(error)
        finally:
            done.release()

    try:
        start(make, "lockkit-etcd-call")
    except RuntimeError:  # the process can start no more threads
        return call()
    if not done.acquire(timeout=seconds):
        raise TimeoutError("gRPC hangs")
    if errors:
        raise errors.pop()  # not kept: a traceback that leads to its own error would keep what it names alive
    return answers.pop()


def ended(end: Callable[[], object], seconds: float) -> None:
    """End something of gRPC's on a thread that no signal strikes. If that hangs, it is left behind."""
    with contextlib.suppress(TimeoutError):
        unstruck(end, seconds)
