"""Ask the choosers of requests to pools, on separate threads: a chooser is user code and may block."""

from __future__ import annotations

from contextvars import copy_context

from lockkit.drivers.jobs import Job
from lockkit.drivers.threadpool import ThreadPool
from lockkit.protocol.effects import Choose, Judge
from lockkit.protocol.running import ask_chooser

__all__ = ["Choices"]

_THREADS = 4
"""The most threads of a client that ask choosers. Further requests wait for them, within their budgets."""

_MOST = 64
"""The largest number of threads of a client in choosers, those included whose requests have given up."""


class Choices:
    """The threads of a client that ask choosers. A release never waits for them, nor does any other call."""

    def __init__(self) -> None:
        self._pool = ThreadPool("lockkit-choose", _THREADS)

    def submit(self, effect: Choose | Judge) -> Job[object]:
        """Ask a chooser on a thread, with the context variables of the calling thread or task."""
        context = copy_context()
        return self._pool.submit(lambda: context.run(ask_chooser, effect))

    def give_up(self, job: Job[object]) -> None:
        """Stop waiting for a chooser. Up to a limit, a hanging thread is replaced, so others can continue."""
        self._pool.give_up(job, _MOST)

    def close(self) -> None:
        """Have the threads end once there is no more work."""
        self._pool.close()
