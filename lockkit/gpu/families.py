"""The processes that a holder was seen to start since its grant: only these are ended at its release.

Processes that were there at the grant do not count, nor does what they start later: a model server, or a
worker of many tasks. A process that left its parent before anybody looked is not known, and never ended. Pids
are reused, so a process counts only with the start time and user that it was seen with (proc_pid_stat(5)),
and gets its signal through a descriptor (pidfd_open(2)), which always means the same process.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection
from contextlib import suppress

from lockkit.lib.descent import children, family
from lockkit.values.identity import look_at

__all__ = ["Family"]


class Family:
    """The descendants of this process that were started since now, as far as they were seen.

    Args:
        root: The pid of the process whose descendants count; None for this one.
        before: Other pids of processes that are there now, and do not count.
    """

    def __init__(self, root: int | None = None, *, before: Collection[int] = ()) -> None:
        self._root = root
        self._seen: dict[int, float] = {}
        self._since = _now()
        # Within one tick of the clock the start time does not show what was there first.
        there = {pid: look_at(pid) for pid in (*children(root or os.getpid()), *before)}
        self._before = {
            pid: one.started for pid, one in there.items() if one is not None and one.started >= self._since
        }

    def look(self, group: int | None = None) -> None:
        """Look at the descendants that there are now, and remember them.

        Args:
            group: A process group all of whose members count, too: that of a command.
        """
        found = family(self._root or os.getpid(), group, self._is_new)
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

    def _is_new(self, pid: int) -> bool:
        """Whether a process was started since the grant."""
        process = look_at(pid)
        return (
            process is not None
            and process.started >= self._since
            and process.started != self._before.get(pid)
        )

    def _there(self, pid: int) -> bool:
        process = look_at(pid)
        return (
            process is not None
            and not process.ended
            and process.started == self._seen.get(pid)
            and _is_mine(pid)
        )


def _now() -> float:
    """The clock of start times, in seconds since boot; see :class:`lockkit.values.identity.Process`."""
    ticks = os.sysconf("SC_CLK_TCK")
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # only Linux has start times to compare
    return (time.clock_gettime_ns(clock) * ticks // 10**9) / ticks


def _is_mine(pid: int) -> bool:
    """Whether a process runs as this user. One that gained rights belongs to root here (proc(5))."""
    try:
        return os.stat(f"/proc/{pid}").st_uid == os.getuid()  # noqa: PTH116
    except OSError:
        return False
