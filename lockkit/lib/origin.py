"""The process in which an object was created, distinguished from every process that was forked from it.

A pid is not enough: a child forked into a new pid namespace may have the pid of its parent (both are 1), and
the pid of an ended process is used again. Memory that the kernel wipes in a forked child is enough, even if C
code forks and no fork hook of Python runs.
"""

from __future__ import annotations

import mmap
import os
from typing import Protocol

__all__ = ["Origin", "this_origin"]

_WIPE_ON_FORK = 18
"""MADV_WIPEONFORK (madvise(2), Linux 4.14): a forked child finds zeros in this memory. Not in module mmap."""


class _Mark(Protocol):
    def __getitem__(self, at: int, /) -> int: ...


class _Unwiped:
    """A substitute for kernels that cannot wipe memory at a fork, such as gVisor's.

    A child is not recognized if it has the pid of its parent and was forked without running fork hooks.
    """

    __slots__ = ("_pid",)

    def __init__(self) -> None:
        self._pid = os.getpid()
        _UNWIPED.add(self)

    def __getitem__(self, at: int, /) -> int:
        return self in _UNWIPED and self._pid == os.getpid()


_UNWIPED: set[_Unwiped] = set()
os.register_at_fork(
    after_in_child=_UNWIPED.clear
)  # a method written in C, so no signal handler interrupts it


class Origin:
    """The process in which an object was created. In a forked child :meth:`is_here` is false.

    Attributes:
        pid: The pid of the process, to be shown to people only.
    """

    __slots__ = ("_mark", "_next", "pid")

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._mark = _marked()
        self._next: dict[str, Origin] = {}

    def is_here(self) -> bool:
        """Whether the calling process is the one in which the object was created."""
        return self._mark[0] == 1

    def next(self) -> Origin:
        """The origin that replaces this one in a forked child; the same for all threads of the child."""
        return self._next.setdefault("", Origin())


def _marked() -> _Mark:
    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE)
    try:
        page.madvise(_WIPE_ON_FORK)
    except OSError:
        return _Unwiped()
    page[0] = 1
    return page


_latest = Origin()


def this_origin() -> Origin:
    """The origin for objects that this process creates now."""
    global _latest  # noqa: PLW0603 (one for each process)
    found = _latest
    while not found.is_here():
        found = _latest = found.next()
    return found
