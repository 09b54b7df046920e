"""Fork hooks that a signal handler cannot leave half done.

CPython reports an exception out of a fork hook and goes on, so a handler that raises there cuts a hook short and nobody
hears of it. A handler runs between any two bytecodes of the main thread, also between the call of a Python function and
its first statement, where no ``try`` reaches. But never inside a method that is written in C. Hence three rules:

- What must not fail, the locks and the sign of a fork, is taken and given back by methods of C, which are the hooks
  themselves: an ``acquire`` either has the lock or raised, a ``release`` that is called releases.
- Everything else is a step that can be repeated: a second run does what the first did not, and nothing else. A step that
  raises is run again, and each is registered several times, for the handler that strikes at its very entry.
- A step that was struck every time all the same leaves nobody waiting; its module says what then refuses, or makes up for it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

__all__ = ["Forks", "reinit"]

Step: TypeAlias = Callable[[], None]
_TRIES = 20
"""Runs of a step that raises each time; its own trouble, which no repetition mends, must not keep a fork for ever."""
_COPIES = 3


class Forks:
    """The forks of this process, as one module takes part in them, one at a time.

    Args:
        before: A step before the fork, with the locks taken; other threads may run.
        in_parent: A step after it.
        in_child: A step after it in the child, where no other thread is.
        locks: Taken before ``before`` in this order, and free after the fork, in the child too. Each is the same object
            for good.
    """

    def __init__(
        self,
        *,
        before: Step | None = None,
        in_parent: Step | None = None,
        in_child: Step | None = None,
        locks: tuple[threading.RLock, ...] = (),
    ) -> None:
        self._before, self._in_parent = before, in_parent
        self._locks = (*locks, threading.RLock())
        self._threads: set[int] = set()
        self._done: set[int] = set()

        # The steps first: what is registered last is run first before a fork, and last after it.
        for _ in range(_COPIES if hasattr(os, "register_at_fork") else 0):
            if before is not None:
                os.register_at_fork(before=_Repeated(self._step_before))
            if in_parent is not None:
                os.register_at_fork(after_in_parent=_Repeated(self._step_after))
            if in_child is not None:
                os.register_at_fork(after_in_child=_Repeated(in_child))
        if before is None or not hasattr(os, "register_at_fork"):
            return
        for sign in (self._threads, self._done):
            os.register_at_fork(after_in_parent=sign.clear, after_in_child=sign.clear)
        for lock in reversed(self._locks):
            # A handler may raise while a lock is waited for. It is had then before the next one is: in the other order
            # two threads that fork at once could each wait for the other.
            for _ in range(_COPIES):
                os.register_at_fork(before=_Repeated(partial(_have, lock)))
            os.register_at_fork(
                before=lock.acquire, after_in_parent=lock.release, after_in_child=reinit(lock)
            )

    def elsewhere(self) -> bool:
        """Whether another thread forks this process now. A signal handler in the one that does is free to go on."""
        return bool(self._threads) and threading.get_ident() not in self._threads

    def under_way(self) -> bool:
        """Whether any thread forks this process now."""
        return bool(self._threads)

    def prepared(self) -> bool:
        """Whether the fork that this thread is in the middle of, or that its process came of, was prepared to the end."""
        return threading.get_ident() in self._done

    def _step_before(self) -> None:
        me = threading.get_ident()
        if me in self._done or not all(map(_mine, self._locks)):
            return
        self._threads.add(me)
        if self._before is not None:
            self._before()
        self._done.add(me)

    def _step_after(self) -> None:
        # Without its locks this thread's fork went unprepared: what there is to undo then is another thread's.
        if self._in_parent is not None and all(map(_mine, self._locks)):
            self._threads.add(threading.get_ident())
            self._in_parent()


class _Repeated:
    """A step, run until it comes to its end; the last exception of a handler that struck it is raised then."""

    __slots__ = ("_step",)

    def __init__(self, step: Step) -> None:
        self._step = step

    def __call__(self) -> None:
        struck: BaseException | None = None
        for _ in range(_TRIES):
            try:
                self._step()
                break
            except BaseException as error:
                struck = error.with_traceback(None)  # its frames may hold what the step is to close
        if struck is not None:
            raise struck


def _mine(lock: threading.RLock) -> bool:
    return bool(lock._is_owned())  # type: ignore[attr-defined]  # noqa: SLF001 - as threading.Condition does


def _have(lock: threading.RLock) -> None:
    if not _mine(lock):
        lock.acquire()


def reinit(lock: threading.RLock) -> Callable[[], Any]:
    """The method that makes a lock free in a forked child, whoever held it."""
    method: Callable[[], Any] = lock._at_fork_reinit  # type: ignore[attr-defined]  # noqa: SLF001 - as the standard library's own
    return method
