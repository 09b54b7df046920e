"""A few threads for calls that an event loop must not make itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias, TypeVar

from lockkit.drivers.starting import start

__all__ = ["Job", "Pool"]

T = TypeVar("T")
Job: TypeAlias = Future[T]
"""A call that was handed to a pool."""
_IDLE = 5.0
"""Seconds after which a thread without work ends."""
_SOON = 0.02
"""The same, in a pool that is closed."""


class Pool:
    """Daemon threads that make calls in order of submission. Each is started when a call finds the others busy.

    Not ``concurrent.futures.ThreadPoolExecutor``, whose threads the interpreter waits for when it ends.

    Args:
        name: The name of the threads.
        most: The largest number of threads.
    """

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._mutex = threading.RLock()
        self._todo: SimpleQueue[tuple[Job[Any], Callable[[], Any]]] = SimpleQueue()
        self._threads = 0
        self._idle = 0
        """Threads that wait for work, beside those for which there is some already."""
        self._closed = False

    def submit(self, call: Callable[[], T]) -> Job[T]:
        """Have a call made by one of the threads; by the calling thread if there is none, and none can be started."""
        job: Job[T] = Future()
        with self._mutex:
            self._todo.put((job, call))
            if self._idle:
                self._idle -= 1
                return job
            if self._threads >= self._most:
                return job
            self._threads += 1
        try:
            start(self._run, self._name)
        except RuntimeError:  # no more threads
            with self._mutex:
                self._threads -= 1
                alone = not self._threads
            while alone and (work := self._next()) is not None:
                _do(*work)
        return job

    def close(self) -> None:
        """Have the threads end once there is no more work. Calls may still be submitted."""
        self._closed = True
        for _ in range(self._threads):
            self.submit(lambda: None)  # so that they notice

    def _run(self) -> None:
        while True:
            with self._mutex:
                work = self._next()
                if work is None:
                    self._idle += 1
            if work is None:
                try:
                    work = self._todo.get(timeout=_SOON if self._closed else _IDLE)
                except Empty:
                    with self._mutex:
                        work = self._next()
                        if work is None:
                            self._idle -= 1
                            self._threads -= 1
                            return
            _do(*work)
            del work  # an idle thread must not keep alive what the call refers to

    def _next(self) -> tuple[Job[Any], Callable[[], Any]] | None:
        try:
            return self._todo.get_nowait()
        except Empty:
            return None


def _do(job: Job[T], call: Callable[[], T]) -> None:
    if not job.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:
        job.set_exception(error)
    else:
        job.set_result(result)
