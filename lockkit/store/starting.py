"""Start a thread from code that a signal may interrupt."""

from __future__ import annotations

import _thread
import contextlib
import threading
from collections.abc import Callable

__all__ = ["OneThread", "join", "own_thread", "owned", "start"]


class _Here(threading.local):
    """The calling thread, and whether lockkit has started it."""

    own = False


_HERE = _Here()


def own_thread() -> bool:
    """Whether lockkit has started the calling thread, by :func:`start` or with :func:`owned` as target."""
    return _HERE.own


def start(target: Callable[[], None], name: str) -> None:
    """Start a daemon thread. If a signal handler raises, the thread is started or not, never half-way.

    ``threading.Thread.start`` waits for the new thread in Python code. A handler that raises there can leave
    the lock of that wait taken, and the new thread never reaches its target. Here the calling thread makes
    one call into C, and the thread that it makes, where no handler runs, starts the ``Thread``. An
    interrupted caller cannot know whether that happened; a target that must run once has to ensure that.

    Raises:
        RuntimeError: No thread can be started (a limit of the system, or the interpreter is shutting down).
    """
    _thread.start_new_thread(_start, (target, name))


def _start(target: Callable[[], None], name: str) -> None:
    left = [target]
    try:
        threading.Thread(target=_run, args=(left,), name=name, daemon=True).start()
    except Exception:  # no second thread, or no memory: run the target in this one, which has no name
        _run(left)


def _run(left: list[Callable[[], None]]) -> None:
    """Run the target that is left. After a start without memory both threads may come here; one gets it."""
    try:
        target = left.pop()
    except IndexError:
        return
    owned(target)


def owned(target: Callable[[], None]) -> None:
    """Run the target of a thread that lockkit starts; :func:`start` does this by itself."""
    _HERE.own = True
    target()


def join(thread: threading.Thread | None, timeout: float) -> None:
    """Wait for a thread of :func:`start` to end, at most ``timeout`` seconds; in that thread, do not wait."""
    if thread is not None and thread.is_alive() and thread is not threading.current_thread() and timeout > 0:
        # The thread runs without a Thread object of its own.
        with contextlib.suppress(AssertionError, RuntimeError):
            thread.join(timeout)


class OneThread:
    """A daemon thread that is started on demand; at most one works, even if a signal interrupts a start.

    Args:
        run: The work. If :meth:`start` is called while it is ending, it is run once more.
        name: The name of the thread.
    """

    __slots__ = ("_asked", "_name", "_run", "_runs")

    def __init__(self, run: Callable[[], None], name: str) -> None:
        self._run = run
        self._name = name
        self._runs = threading.Lock()  # kept by the one thread that works
        self._asked = False

    def start(self) -> None:
        """Start the thread, unless it is running.

        Raises:
            RuntimeError: No thread can be started.
        """
        self._asked = True  # first: a thread that is about to end looks at it
        if not self._runs.locked():
            start(self._work, self._name)

    @property
    def running(self) -> bool:
        """Whether the thread works."""
        return self._runs.locked()

    def _work(self) -> None:
        # Two callers may each start a thread before either works; one of them ends.
        while self._asked and self._runs.acquire(blocking=False):
            try:
                self._asked = False
                self._run()
            finally:
                self._runs.release()
