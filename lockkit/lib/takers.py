"""The taker of a lock: the asyncio task that runs, else the current thread."""

from __future__ import annotations

import sys
import threading
import weakref

__all__ = ["THREAD", "asker", "outlives_exit"]


class _Thread(threading.local):
    """The current thread.

    Attributes:
        key: A weak reference to the thread object. Not its identifier, which a later thread may get; weak,
            because the thread may own the lock or lease that keeps this key.
    """

    def __init__(self) -> None:
        self.key: weakref.ref[object] = weakref.ref(threading.current_thread())


THREAD = _Thread()
"""The current thread."""


def asker() -> weakref.ref[object]:
    """A reference to the running asyncio task, else to the current thread."""
    asyncio = sys.modules.get("asyncio")
    # The private function does not raise. It is missing while another thread first imports asyncio.
    running_loop = getattr(asyncio, "_get_running_loop", None)
    if asyncio is not None and running_loop is not None and running_loop() is not None:
        task: object = asyncio.current_task()
        if task is not None:
            return weakref.ref(task)
    return THREAD.key


def outlives_exit(taker: object) -> bool:
    """Whether a thread or task may outlive the interpreter: a daemon thread, or a task whose loop runs."""
    if isinstance(taker, threading.Thread):
        return taker.daemon and taker.is_alive() and taker is not threading.current_thread()
    done, get_loop = getattr(taker, "done", None), getattr(taker, "get_loop", None)
    return done is not None and get_loop is not None and not done() and get_loop().is_running()
