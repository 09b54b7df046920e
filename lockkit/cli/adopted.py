"""The zombies that the first process of a container adopts and must collect (pid_namespaces(7))."""

from __future__ import annotations

import os

from lockkit.lib.descent import children
from lockkit.values.identity import look_at

__all__ = ["Adopted"]

_LEFT = 1.0
"""Seconds of being a zombie before a process is collected: a plugin that started it may wait for it."""


class Adopted:
    """The adopted processes of this first process, which are collected when they have ended.

    A process in this one's group is never collected: lockkit and its plugins start such processes and wait
    for them, and would take a missing one for one that ended well.

    The supervisor itself waits for ``others``.
    """

    def __init__(self, *others: int) -> None:
        self._others = others
        self._looked = 0.0
        self._ended: set[int] = set()

    def collect(self, now: float) -> float:
        """Collect what had ended at the last look and still is there.

        Returns:
            The seconds after which to look again; infinite if there is nothing to look for.
        """
        if now - self._looked < _LEFT:
            return self._looked + _LEFT - now
        self._looked = now
        ended = {pid for pid in children(os.getpid()) if pid not in self._others and _left_behind(pid)}
        for pid in ended & self._ended:
            _wait_for(pid)
        self._ended = ended - self._ended
        return _LEFT if self._ended else float("inf")


def _left_behind(pid: int) -> bool:
    """Whether a child has ended, and comes from the command's processes."""
    process = look_at(pid)
    try:
        return process is not None and process.ended and os.getpgid(pid) != os.getpgrp()
    except ProcessLookupError:
        return False


def _wait_for(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return  # a plugin has waited for it in the meantime
