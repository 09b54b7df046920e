"""The memory of a card that each of its holders uses: which of the processes on the card are whose."""

from __future__ import annotations

from collections.abc import Callable

from lockkit.devices import Device
from lockkit.facts import ClaimInfo
from lockkit.identity import boot_id, look_at, pid_space

__all__ = ["parent_of", "used_by", "used_by_holder", "works_for"]

_DEEPEST = 64
"""Generations that are looked at. A chain that is longer was read while pids were used again."""


def parent_of(pid: int) -> int:
    """The pid of a process's parent; 0 if there is none, or if that cannot be seen."""
    seen = look_at(pid)
    return 0 if seen is None else seen.parent


def works_for(pid: int, owner: int, parent: Callable[[int], int] = parent_of) -> bool:
    """Whether a process is ``owner``, or one of its descendants. One that has detached itself cannot be told, and counts as a stranger."""
    for _ in range(_DEEPEST):
        if pid == owner:
            return True
        if pid <= 1:
            return False
        pid = parent(pid)
    return False


def used_by(device: Device, owner: int, parent: Callable[[int], int] = parent_of) -> int | None:
    """The bytes of a card that a process and its descendants use; None if that cannot be told.

    Args:
        device: The card.
        owner: The pid of the process, in this pid namespace.
        parent: Tells the parent of a process.
    """
    if device.processes is None or any(one.pid is None for one in device.processes):
        return None
    sizes = [
        one.memory for one in device.processes if one.pid is not None and works_for(one.pid, owner, parent)
    ]
    return None if None in sizes else sum(size or 0 for size in sizes)


def used_by_holder(device: Device, holder: ClaimInfo, parent: Callable[[int], int] = parent_of) -> int | None:
    """The bytes of a card that a holder of a part of it uses, if the holder is a process of this host that can be seen from here; else None."""
    owner = holder.owner
    here = bool(owner.boot_id) and owner.boot_id == boot_id() and owner.pid_space == pid_space() != 0
    return used_by(device, owner.pid, parent) if here and holder.process in ("alive", "stopped") else None
