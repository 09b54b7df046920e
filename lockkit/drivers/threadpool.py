"""A few threads for calls that an event loop must not make itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from lockkit.drivers.jobs import Job
from lockkit.store.starting import start

__all__ = ["ThreadPool"]

T = TypeVar("T")
_IDLE = 5.0
"""Seconds after which a thread without work ends."""


class ThreadPool:
    """Daemon threads that make calls in order of submission. A new one starts when all others are busy.

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
        self._threads = self._waiting = 0
        self._closed = False

    def submit(self, call: Callable[[], T], job: Job[T] | None = None) -> Job[T]:
        """Have a thread of the pool make a call; make it here if there is no thread and none can start.

        Args:
            call: The call.
            job: A new job for the call, if the caller needs it even if a signal handler raises in here.
        """
        if job is None:
            job = Job()
        self._todo.put((job, call))
        if self._one_more() and not self._start() and not self._threads:
            self._do_all()
        return job

    def give_up(self, job: Job[Any], most: int) -> None:
        """Stop waiting for a job: cancel it, or replace its thread, if that hangs, until the call returns.

        Args:
            job: The job.
            most: The largest number of threads in all, those that hang included.
        """
        if job.cancel() or job.done():
            return
        with self._mutex:
            if self._most >= most:
                return
            self._most += 1
        job.add_done_callback(self._returned)
        if self._one_more():
            self._start()

    def _returned(self, _job: Job[Any]) -> None:
        with self._mutex:
            self._most -= 1

    def close(self) -> None:
        """Have the threads end once there is no more work. Calls may still be submitted."""
        self._closed = True
        self._pass_on()

    def _one_more(self) -> bool:
        """Whether there is work for one more thread, which then has to be started."""
        with self._mutex:
            more = self._todo.qsize() > self._waiting and self._threads < self._most
            self._threads += more
            return more

    def _start(self) -> bool:
        try:
            start(self._run, self._name)
        except RuntimeError:  # no more threads
            with self._mutex:
                self._threads -= 1
            return False
        return True

    def _run(self) -> None:
        while (work := self._next()) is not None:
            if self._one_more():  # a submit may have counted on this thread
                self._start()
            _do(*work)
            del work  # an idle thread must not keep alive what the call refers to

    def _next(self) -> tuple[Job[Any], Callable[[], Any]] | None:
        """Wait for work; None if the thread is to end."""
        with self._mutex:
            self._waiting += 1
        while True:
            try:
                work = self._todo.get(timeout=0.0 if self._closed else _IDLE)
            except Empty:
                work = None
            with self._mutex:
                if work is None and self._todo.qsize():
                    continue
                self._waiting -= 1
                self._threads -= work is None
            if work is None and self._closed:
                self._pass_on()
            return work

    def _pass_on(self) -> None:
        """Wake a waiting thread of a closed pool, which wakes the next."""
        if self._waiting:
            self._todo.put((Job(), _nothing))

    def _do_all(self) -> None:
        try:
            while True:
                _do(*self._todo.get_nowait())
        except Empty:
            return


def _nothing() -> None:
    return None


def _do(job: Job[T], call: Callable[[], T]) -> None:
    if not job.begin():
        return
    try:
        result = call()
    except BaseException as error:
        job.end(None, error)
    else:
        job.end(result)
