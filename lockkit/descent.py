"""The processes that a process has started, and those that these have started, as ``/proc`` shows them now (proc_pid_stat(5))."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["descendants", "family"]


def descendants(pid: int) -> list[int]:
    """All descendants of a process. One whose parent has ended is the child of another process, and no descendant any more."""
    return family(pid, None)


def family(pid: int, group: int | None) -> list[int]:
    """All descendants of a process, and all members of a process group.

    Args:
        pid: The process.
        group: The process group; None for none.
    """
    parents: dict[int, list[int]] = {}
    found: list[int] = []
    try:
        entries = [entry for entry in os.listdir("/proc") if entry.isdigit()]  # noqa: PTH208 (names, not paths)
    except OSError:
        return []
    for entry in entries:
        try:
            text = Path(f"/proc/{entry}/stat").read_text(encoding="ascii", errors="replace")
            fields = text.rpartition(")")[2].split()
            parents.setdefault(int(fields[1]), []).append(int(entry))
            if group is not None and int(fields[2]) == group:
                found.append(int(entry))
        except (OSError, IndexError, ValueError):
            continue
    todo = list(parents.get(pid, ()))
    while todo:
        one = todo.pop()
        found.append(one)
        todo.extend(parents.get(one, ()))
    return found
