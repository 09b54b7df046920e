"""Work that must be done once and to its end, away from the thread that asks for it and from its signals."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable

from lockkit.bell import Bell
from lockkit.drivers.starting import start

__all__ = ["Errand"]

_log = logging.getLogger("lockkit.driver")
_TICK = 0.02
_LONG = 1.0


class Errand:
    """A piece of work that a thread of its own does once, whoever asks for it and however often.

    No signal handler runs in that thread: a Ctrl-C can only end a wait for the work.

    Args:
        work: The work to do; an exception that it raises is logged.
        lend: Gives the work to a thread that runs already; False if there is none. For the end of the interpreter, when
            no thread can be started.

    Attributes:
        over: Whether it is done.
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
        """Have the work done in the background; by the calling thread if there is no other."""
        if self._begun:
            return
        try:
            start(self._run, self._name)
        except RuntimeError:  # no more threads
            if not self._lend(self._run):
                self._run()
        self._begun = True

    def do(self) -> None:
        """Do it in this thread; if another one is at it, wait until that has done it. For a thread that no signal interrupts."""
        self._run()
        self._wait(None, lambda: False)

    def wait(self, longest: float | None = None, paused: Callable[[], bool] = lambda: False) -> None:
        """Begin, and wait until it is done.

        One Ctrl-C is kept for the end of the wait. A second one ends the wait; the work goes on. Once the interpreter is being
        finalized, nothing is begun and nobody waits.

        Args:
            longest: Seconds to wait at most.
            paused: Whether the present time does not count.
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
            raise interrupts[0]

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
