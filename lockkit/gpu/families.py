"""The processes that a holder has started, as far as they were seen: of those that still use a card at its release, none belongs to anybody else.

A process that was started and left its parent before anybody looked is not known, and is never ended. A pid is reused, so a process counts
only with the start time and the user that it was seen with (proc_pid_stat(5)), and it gets its signal through a descriptor
(pidfd_open(2)), which always means the same process.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Collection
from contextlib import suppress

from lockkit.descent import family
from lockkit.identity import look_at

__all__ = ["Family"]


class Family:
    """The descendants of this process, as far as they were seen.

    Args:
        root: The pid of the process whose descendants count; None for this one.
    """

    def __init__(self, root: int | None = None) -> None:
        self._root = root
        self._seen: dict[int, float] = {}

    def look(self, group: int | None = None) -> None:
        """Look at the descendants that there are now, and remember them.

        Args:
            group: A process group all of whose members count, too: that of a command.
        """
        found = family(self._root or os.getpid(), group)
        for pid in found:
            process = look_at(pid)
            if process is not None and pid != os.getpid() and _is_mine(pid):
                self._seen[pid] = process.started
        self._seen = {pid: began for pid, began in self._seen.items() if pid in found or self._there(pid)}

    def among(self, pids: Collection[int]) -> list[int]:
        """The pids, of some, that are processes of this family and have not ended."""
        return [pid for pid in pids if pid in self._seen and self._there(pid)]

    def signal(self, pid: int, number: int) -> bool:
        """Send a signal to a process of the family. Returns whether it was sent."""
        if pid not in self._seen:
            return False
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            return False
        try:
            if not self._there(pid):  # now the descriptor can mean no other process
                return False
            with suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(descriptor, number)
                return True
            return False
        finally:
            os.close(descriptor)

    def _there(self, pid: int) -> bool:
        process = look_at(pid)
        return (
            process is not None
            and not process.ended
            and process.started == self._seen.get(pid)
            and _is_mine(pid)
        )


def _is_mine(pid: int) -> bool:
    """Whether a process runs as this user. One that gained rights belongs to root here (proc(5))."""
    try:
        return os.stat(f"/proc/{pid}").st_uid == os.getuid()  # noqa: PTH116
    except OSError:
        return False
