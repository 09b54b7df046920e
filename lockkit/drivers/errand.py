"""Work that must run once and to its end, on a thread that no signal handler interrupts."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

from lockkit.lib.bell import Bell
from lockkit.store.log import Log
from lockkit.store.starting import start

__all__ = ["Errand"]

_log = Log("lockkit.driver")
_TICK = 0.02
_LONG = 1.0


class Errand:
    """A piece of work that runs once, on a separate thread, even if several threads ask for it.

    Signal handlers run only in the main thread, so a Ctrl-C can end a wait for the work, but never the work.

    Args:
        work: The work to do; an exception that it raises is logged.
        lend: Gives the work to a running thread if none can be started; returns False if there is none.

    Attributes:
        over: Whether the work is done.
    """

    def __init__(
        self, name: str, work: Callable[[], None], lend: Callable[[Callable[[], None]], bool]
    ) -> None:
        self._name = name
        self._work = work
        self._lend = lend
        self._turn = threading.Lock()
        self._begun = False
        self._bells: list[Bell] = []
        self.over = False

    def begin(self) -> None:
        """Have the work done in the background, or by the calling thread if there is no other."""
        if self._begun:
            return
        try:
            start(self._run, self._name)
        except RuntimeError:  # no more threads
            if not self._lend(self._run):
                self._run()
        self._begun = True

    def do(self) -> None:
        """Do the work here, or wait for the thread that does it. For threads that no signal interrupts."""
        self._run()
        self._wait(None, lambda: False)

    def wait(self, longest: float | None = None, paused: Callable[[], bool] = lambda: False) -> None:
        """Start the work, and wait until it is done.

        One Ctrl-C is kept until the end of the wait. A second one ends the wait; the work continues. While
        the interpreter is being finalized, the call starts nothing and returns at once.

        Args:
            longest: Seconds to wait at most.
            paused: Whether the time that is passing now does not count towards ``longest``.
        """
        if sys.is_finalizing():  # no other thread runs any more, and the exit has released what was held
            return
        interrupts: list[BaseException] = []
        while not self.over:
            try:
                self.begin()
                longest = self._wait(longest, paused)
                break
            except BaseException as interrupt:
                interrupts.append(interrupt)
                if len(interrupts) > 1:
                    break
        if interrupts:
            try:
                raise interrupts[0]
            finally:
                interrupts.clear()  # what is raised refers to this frame, and must not be kept by it

    def _wait(self, longest: float | None, paused: Callable[[], bool]) -> float | None:
        bell = Bell()
        self._bells.append(bell)
        while not self.over:
            if longest is None:
                bell.wait(_LONG)
            elif longest > 0 or paused():
                bell.wait(_TICK)
                longest -= 0.0 if paused() else _TICK
            else:
                break
        return longest

    def _run(self) -> None:
        if not self._turn.acquire(blocking=False):
            return  # another thread does it
        self._begun = True
        try:
            self._work()
        except BaseException:
            _log.exception("%s failed", self._name)
        finally:
            self.over = True
            for bell in self._bells:
                bell.ring()
