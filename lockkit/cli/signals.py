"""Signals: they end a wait by an exception, and ``lockkit run`` passes them on to its command once that runs.

By default SIGTERM ends Python without any ``finally``: a wait would leave its claim, a demo its processes.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["PASSED_ON", "Signals", "Terminated"]

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
PASSED_ON = (*ENDING, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGTSTP)
_WATCHED = (*PASSED_ON, signal.SIGCONT, signal.SIGCHLD)
_CLEANING_UP = 10.0
"""Seconds for cleaning up after a signal; a second signal within them is ignored."""
_Handler = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None


class Terminated(BaseException):
    """A signal ended the wait. The class is no Exception, so that no code handles it as an error of its own.

    ``name`` is the lock that was waited for, or None; ``wanted`` describes another aim of the wait.
    """

    def __init__(self, number: int, name: str | None = None, wanted: str | None = None) -> None:
        super().__init__(number, name, wanted)
        self.number = number
        self.name = name
        self.wanted = wanted

    def __str__(self) -> str:
        what = signal.Signals(self.number).name
        if self.name is None:
            return f"ended by {what}"
        return f"{what} while waiting for {self.wanted or repr(self.name)}"


class Signals:
    """Signal handlers for the time of one command. Main thread only.

    Until :meth:`record` is called, signals that end a program raise (KeyboardInterrupt or
    :class:`Terminated`), but only once within the time for cleaning up. After that every signal is kept for
    :meth:`take`. Signals that the caller ignores (``nohup``) stay ignored.

    The exception may be swallowed on the way: by a plugin that survives the failure of an import, or by
    Python, which ignores exceptions in callbacks of its garbage collection. So :meth:`check` and
    :meth:`record` raise it again, and if it was turned into another error, the ``with`` raises the original.

    Args:
        name: The lock that is waited for, for messages.
        wanted: What is waited for in words, such as ``1 GPU``, if that is not the lock of this name.

    Attributes:
        name: As above. The name of a pool may become known only after the configuration was read.
    """

    def __init__(self, name: str | None = None, wanted: str | None = None) -> None:
        self.name = name
        self._wanted = wanted
        self._old: dict[int, _Handler] = {}
        self._taken: list[int] = []
        self._recording = False
        self._ending: BaseException | None = None
        self._ends_by = 0.0
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
        if error is not None and error is not self._ending:
            self.check()

    def check(self) -> None:
        """Raise the exception of an earlier signal again, in case it was swallowed."""
        if self._ending is not None:
            raise self._ending

    def record(self) -> None:
        """Call :meth:`check`; then keep all further signals for :meth:`take` instead of raising."""
        self._recording = True
        self.check()
        self._install(_WATCHED)

    def take(self) -> list[int]:
        """The signals that came since the last call, in order."""
        taken, self._taken = self._taken, []
        return taken

    def wait(self, seconds: float, also: Sequence[int] = ()) -> None:
        """Sleep until a signal, a :meth:`wake`, the given seconds, or readable data on other descriptors."""
        ready = select.poll()  # not select(2), which knows no descriptor above 1023
        for descriptor in (self._read, *also):
            ready.register(descriptor, select.POLLIN)
        if any(descriptor == self._read for descriptor, _ in ready.poll(max(seconds, 0.0) * 1000)):
            try:
                os.read(self._read, 4096)
            except BlockingIOError:
                return

    def wake(self) -> None:
        """End a :meth:`wait`, from any thread."""
        try:
            os.write(self._write, b"\0")
        except OSError:
            return  # the pipe is full, so the thread wakes anyway; or it is closed, so no thread waits

    def handled(self) -> tuple[int, ...]:
        """The signals that this object handles; a child must reset them."""
        return tuple(self._old)

    def _install(self, numbers: tuple[signal.Signals, ...]) -> None:
        for number in numbers:
            # Nobody can wait for a child while SIGCHLD is ignored (wait(2)): it is handled all the same.
            ignored = signal.getsignal(number) is signal.SIG_IGN and number != signal.SIGCHLD
            if number not in self._old and not ignored:
                self._old[number] = signal.signal(number, self._arrived)

    def _arrived(self, number: int, _frame: FrameType | None) -> None:
        if self._recording:
            self._taken.append(number)
            return
        now = time.monotonic()
        if self._ending is not None and now < self._ends_by:
            return
        self._ends_by = now + _CLEANING_UP
        self._ending = (
            KeyboardInterrupt() if number == signal.SIGINT else Terminated(number, self.name, self._wanted)
        )
        raise self._ending
