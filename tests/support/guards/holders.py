"""Holders that increment one register, each paused by a schedule before any request, for any time.

Each believes that it holds, like a process stopped after a check of its lease. Only the register can refuse.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from lockkit.errors import LockkitError

__all__ = ["FakeLease", "Register", "Turns", "lost", "lost_in_some_run", "two_switches"]


class FakeLease(NamedTuple):
    """A lease with a fence of the test's choice, always valid in its own eyes."""

    fence: int
    name: str = "it"
    exclusive: bool = True

    def ensure_held(self) -> None:
        """Do nothing."""


class Register(Protocol):
    """One counter on a real resource, and the ways to it.

    Attributes:
        refusals: Errors of a request that surely had no effect, such as a row locked by a transaction.
    """

    refusals: tuple[type[Exception], ...]

    def clear(self) -> None:
        """Begin with a new counter, which nobody has opened."""

    def opened(
        self, fence: int, pause: Callable[[], None]
    ) -> tuple[Callable[[], int], Callable[[int], None]]:
        """Open the counter's gate; returns its reader and writer. ``pause`` is called before each request."""

    def unguarded(self, pause: Callable[[], None]) -> tuple[Callable[[], int], Callable[[int], None]]:
        """The same without a gate."""

    def value(self) -> int:
        """The counter as it stands."""


class Turns:
    """Threads of which one runs at a time. A schedule says which, each time that the running one pauses.

    Args:
        schedule: Numbers; each picks a running thread, modulo their number. At its end the first goes on.
    """

    def __init__(self, schedule: Sequence[int]) -> None:
        self._schedule = iter(schedule)
        self._mine = threading.local()
        self._back = threading.Semaphore(0)
        self._trouble: list[BaseException] = []

    def pause(self) -> None:
        """Let others run, until the schedule comes back to this thread. Outside of a holder: nothing."""
        turn: threading.Semaphore | None = getattr(self._mine, "turn", None)
        if turn is not None:
            self._back.release()
            turn.acquire()

    def run(self, *holders: Callable[[], None]) -> None:
        """Run all of them to their ends."""
        turns = [threading.Semaphore(0) for _ in holders]
        over = [False for _ in holders]

        def hold(at: int) -> None:
            self._mine.turn = turns[at]
            turns[at].acquire()
            try:
                holders[at]()
            except BaseException as error:
                self._trouble.append(error)
            finally:
                over[at] = True
                self._back.release()

        threads = [threading.Thread(target=hold, args=(at,), daemon=True) for at in range(len(holders))]
        for thread in threads:
            thread.start()
        while left := [at for at, done in enumerate(over) if not done]:
            turns[left[next(self._schedule, 0) % len(left)]].release()
            self._back.acquire()
        for thread in threads:
            thread.join()
        if self._trouble:
            raise self._trouble[0]


def lost(register: Register, schedule: Sequence[int], *, guarded: bool = True, holders: int = 2) -> int:
    """Updates that were written and are not in the counter, after one run of holders with rising fences."""
    register.clear()
    turns = Turns(schedule)
    written: list[int] = []
    refusals: tuple[type[Exception], ...] = (LockkitError, *register.refusals)

    def holder(fence: int) -> Callable[[], None]:
        def increment() -> None:
            try:
                turns.pause()
                read, write = (
                    register.opened(fence, turns.pause) if guarded else register.unguarded(turns.pause)
                )
                write(read() + 1)
            except refusals:
                return
            written.append(fence)

        return increment

    turns.run(*(holder(at + 1) for at in range(holders)))
    missing = len(written) - register.value()
    assert missing >= 0, "more updates than were reported"
    return missing


def lost_in_some_run(register: Register, *, guarded: bool = True) -> bool:
    """Whether two holders lose an update in any schedule of two switches. In sequence they lose none."""
    alone = lost(register, [], guarded=guarded)
    assert (alone, register.value()) == (0, 2)
    return any(lost(register, schedule, guarded=guarded) for schedule in two_switches())


def two_switches() -> Iterator[list[int]]:
    """Schedules of two holders: the first runs for a while, then the second, then the first to its end."""
    for first in range(1, 11):
        for second in range(1, 11):
            yield [0] * first + [1] * second
