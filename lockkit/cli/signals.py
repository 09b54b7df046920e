"""Signals of ``lockkit run``: they end a wait by an exception, and are passed on once there is a command to pass them to.

Python's default SIGTERM runs no ``finally``, so a wait that is ended by one would leave its claim in the queue.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["PASSED_ON", "Signals", "Terminated"]

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
PASSED_ON = (*ENDING, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGTSTP)
_WATCHED = (*PASSED_ON, signal.SIGCONT, signal.SIGCHLD)
_Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None


class Terminated(BaseException):
    """A signal ended the wait. Not an Exception: nothing on the way may mistake it for trouble of its own."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Signals:
    """Handlers for the time of one ``run``. Main thread only.

    Until :meth:`record` the ending signals raise (KeyboardInterrupt or :class:`Terminated`), once; from then on every
    signal is kept for :meth:`take`. What the caller ignores (``nohup``) stays ignored.
    """

    def __init__(self) -> None:
        self._old: dict[int, _Handler] = {}
        self._taken: list[int] = []
        self._recording = False
        self._raised = False
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._old_fd = -1

    def __enter__(self) -> Self:
        self._old_fd = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._install(ENDING)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_fd)
        os.close(self._read)
        os.close(self._write)

    def record(self) -> None:
        """Raise no more; keep signals for :meth:`take`."""
        self._recording = True
        self._install(_WATCHED)

    def take(self) -> list[int]:
        """The signals that came since the last call, in order."""
        taken, self._taken = self._taken, []
        return taken

    def wait(self, seconds: float) -> None:
        """Sleep until a signal, a :meth:`wake`, or the end of so many seconds."""
        try:
            ready, _, _ = select.select([self._read], [], [], seconds)
        except InterruptedError:  # pragma: no cover (PEP 475 retries, so this is a Python that doesn't)
            return
        if ready:
            try:
                os.read(self._read, 4096)
            except BlockingIOError:
                return

    def wake(self) -> None:
        """End a :meth:`wait`, from any thread."""
        try:
            os.write(self._write, b"\0")
        except OSError:
            return  # full, so that it wakes anyway; or closed, so that nobody waits

    def handled(self) -> tuple[int, ...]:
        """The signals with a handler of ours: a child must set them back."""
        return tuple(self._old)

    def _install(self, numbers: tuple[signal.Signals, ...]) -> None:
        for number in numbers:
            if number not in self._old and signal.getsignal(number) is not signal.SIG_IGN:
                self._old[number] = signal.signal(number, self._arrived)

    def _arrived(self, number: int, _frame: FrameType | None) -> None:
        if self._recording:
            self._taken.append(number)
            return
        if self._raised:
            return  # it is on its way out, and cleaning up takes at most a few seconds
        self._raised = True
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise Terminated(number)
