"""The process in which an object was made, told apart from every process that was forked from it.

A pid does not tell: a child that is forked into a new pid namespace may have the pid of its parent (both are 1), and a pid is given
away again when its process has ended. Memory that the kernel wipes in a forked child tells, whoever forks and however.
"""

from __future__ import annotations

import mmap
import os
from typing import Protocol

__all__ = ["Origin", "this_origin"]

_WIPE_ON_FORK = 18
"""MADV_WIPEONFORK (madvise(2), Linux 4.14): a forked child finds zeros in this memory. Python has no name for it."""


class _Mark(Protocol):
    def __getitem__(self, at: int, /) -> int: ...


class _Unwiped:
    """A mark on a kernel that wipes no memory, such as gVisor: it overlooks a child with the same pid, if that was forked without hooks."""

    __slots__ = ("_pid",)

    def __init__(self) -> None:
        self._pid = os.getpid()
        _UNWIPED.add(self)

    def __getitem__(self, at: int, /) -> int:
        return self in _UNWIPED and self._pid == os.getpid()


_UNWIPED: set[_Unwiped] = set()
os.register_at_fork(after_in_child=_UNWIPED.clear)  # a method written in C: no signal handler interrupts it


class Origin:
    """The process in which an object was made. A forked child inherits the object, and :meth:`is_here` is false there.

    Attributes:
        pid: The pid of the process, for people.
    """

    __slots__ = ("_mark", "_next", "pid")

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._mark = _marked()
        self._next: dict[str, Origin] = {}

    def is_here(self) -> bool:
        """Whether the calling process is the one in which the object was made."""
        return self._mark[0] == 1

    def next(self) -> Origin:
        """The origin that a forked child puts in the place of this one; the same for all of its threads."""
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
    """The origin of what this process makes now."""
    global _latest  # noqa: PLW0603 (one for each process)
    found = _latest
    while not found.is_here():
        found = _latest = found.next()
    return found
