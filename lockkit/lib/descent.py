"""The descendants of a process, as ``/proc`` shows them now (proc_pid_stat(5))."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

__all__ = ["children", "descendants", "family"]


def descendants(pid: int) -> list[int]:
    """All descendants of a process. One whose parent has ended belongs to another process now."""
    return family(pid, None)


def children(pid: int) -> list[int]:
    """A process's children, without a scan of /proc where the kernel lists them (proc_pid_task(5))."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 (names, not paths)
            told = Path(f"/proc/{pid}/task/{thread}/children").read_text(encoding="ascii")
            found.extend(map(int, told.split()))
    except OSError:  # a thread has ended, or the kernel has no list
        return descendants(pid)
    return found


def family(pid: int, group: int | None, counts: Callable[[int], bool] | None = None) -> list[int]:
    """All descendants of a process, and all members of a process group.

    Args:
        pid: The process.
        group: The process group; None for none.
        counts: Whether a process counts; the descendants of one that does not are left out. None: all count.
    """
    parents: dict[int, list[int]] = {}
    found: list[int] = []
    try:
        entries = [entry for entry in os.listdir("/proc") if entry.isdigit()]  # noqa: PTH208 (names only)
    except OSError:
        return []
    for entry in entries:
        try:
            text = Path(f"/proc/{entry}/stat").read_text(encoding="utf-8", errors="replace")
            fields = text.rpartition(")")[2].split()
            parents.setdefault(int(fields[1]), []).append(int(entry))
            if group is not None and int(fields[2]) == group and (counts is None or counts(int(entry))):
                found.append(int(entry))
        except (OSError, IndexError, ValueError):
            continue
    todo = list(parents.get(pid, ()))
    while todo:
        one = todo.pop()
        if counts is not None and not counts(one):
            continue
        found.append(one)
        todo.extend(parents.get(one, ()))
    return found
