"""Calls into gRPC that no signal handler can interrupt.

CPython runs signal handlers in the main thread. gRPC guards its channels and calls with locks in Python code
(``threading.Condition``). If a handler raises there, as on Ctrl-C, a lock may stay taken, and every later
call on the channel hangs, in every thread. So the main thread has another thread make its calls, and a
handler interrupts only the main thread's wait.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

from lockkit.store.starting import start

__all__ = ["call_off_main_thread", "end_off_main_thread"]

T = TypeVar("T")


def call_off_main_thread(call: Callable[[], T], seconds: float) -> T:
    """Make a call on a thread without signal handlers. If one cuts the wait short, the call still runs on.

    Args:
        call: The call, which ends by itself unless gRPC hangs.
        seconds: The longest time to wait.

    Raises:
        TimeoutError: The call did not end in time.
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
        raise errors.pop()  # a traceback that refers to its own error would keep its frames alive
    return answers.pop()


def end_off_main_thread(end: Callable[[], object], seconds: float) -> None:
    """End a gRPC stream or channel on a thread without signal handlers; if that hangs, do not wait."""
    with contextlib.suppress(TimeoutError):
        call_off_main_thread(end, seconds)
