"""The judgement of an owner: whether the process that made a claim runs, is stopped, or has ended.

The judgement is the same for all stores and all commands. Only a process that sees the owner's pid can judge:
on the same host, since the same boot, and in the same pid namespace. Otherwise the state is unknown: a pid of
another host or container says nothing about the process that has that pid here.
"""

from __future__ import annotations

import os
from pathlib import Path

from lockkit.facts import ClaimInfo, Keeper, LockInfo, Owner, ProcessState
from lockkit.store.untrusted import DAMAGED, NEWER
from lockkit.values.identity import look_at, same_start, this_process

__all__ = ["NOBODY", "judged", "judged_queue", "judgement", "keepers", "started_this"]

NOBODY = "no process keeps it; its ttl decides"
"""The evidence for a claim that outlives the process that made it."""
_WRITES_ONLY = 0o3
"""The bits of a descriptor's flags that say how it was opened (open(2)): 1 is for writing only."""


def judgement(owner: Owner) -> tuple[ProcessState, str]:
    """The state of the process that an owner describes, and how that is known."""
    here = this_process()
    if not owner.pid or not owner.started or not owner.boot_id or not here.boot_id:
        return "unknown", "the process that made it cannot be identified"
    if owner.boot_id != here.boot_id:
        if owner.host == here.host:
            return "unknown", "it was made before this host was restarted, or on another host of this name"
        return "unknown", f"its process is on another host, {owner.host or 'unknown'}"
    if owner.pid_space != here.pid_space and owner.pid_space and here.pid_space:
        return "unknown", "its process or this one is in a container, where the same process has another pid"
    process = look_at(owner.pid)
    if process is not None and same_start(process.started, owner.started):
        if process.ended:
            return "gone", f"process {owner.pid} on this host has ended"
        if process.stopped:
            return "stopped", f"process {owner.pid} on this host is stopped"
        return "alive", f"process {owner.pid} runs on this host"
    if not owner.pid_space or owner.pid_space != here.pid_space:
        return "unknown", f"process {owner.pid} is not seen here, which may be another container than its own"
    if process is not None:
        if not _same_clock(owner.pid):
            return "unknown", f"process {owner.pid} on this host may count its time by another clock"
        return "gone", f"process {owner.pid} on this host has ended, and another process has that pid now"
    try:
        os.kill(owner.pid, 0)  # sends no signal
    except ProcessLookupError:
        return "gone", f"process {owner.pid} on this host has ended"
    except OSError:
        pass
    return "unknown", f"process {owner.pid} on this host cannot be seen"


def _same_clock(pid: int) -> bool:
    """Whether a process surely has this one's time namespace, and so counts the same seconds since boot."""
    try:
        here = os.stat("/proc/self/ns/time").st_ino  # noqa: PTH116
    except OSError:
        return True  # this kernel has no time namespaces
    try:
        return os.stat(f"/proc/{pid}/ns/time").st_ino == here  # noqa: PTH116
    except OSError:
        return False  # it belongs to another user


def started_this(claim: ClaimInfo) -> bool:
    """Whether the process that made a claim still runs, and started this one, directly or through others."""
    if claim.process != "alive" or claim.owner.pid == os.getpid():
        return False
    pid = os.getppid()
    while pid > 0:
        process = look_at(pid)
        if process is None:
            return False
        if pid == claim.owner.pid:
            return True
        pid = process.parent
    return False


def judged(claim: ClaimInfo) -> ClaimInfo:
    """A claim with the state of its process; what its store found out is kept: it may see more than a pid."""
    if claim.state == "LINGERING" or claim.process != "unknown":
        return claim
    if claim.note.get("acquire") or claim.evidence == NOBODY:
        return claim._replace(process="unknown", alive=None, evidence=NOBODY)
    if claim.evidence.startswith((DAMAGED, NEWER)):  # what it says proves nothing
        return claim._replace(process="unknown", alive=None)
    if claim.alive is False:
        return claim._replace(process="gone")
    process, seen = judgement(claim.owner)
    if process == "alive":
        return claim._replace(process=process, alive=True, evidence=(claim.alive and claim.evidence) or seen)
    evidence = (
        f"{seen}; {claim.evidence}" if claim.evidence and (claim.alive or process == "unknown") else seen
    )
    if process == "stopped":
        return claim._replace(process=process, alive=None, evidence=evidence)
    alive = False if process == "gone" and claim.alive is None else claim.alive
    return claim._replace(process=process, alive=alive, evidence=evidence)


def judged_queue(info: LockInfo) -> LockInfo:
    """A queue with the state of each claim's process."""
    return info._replace(claims=tuple(judged(claim) for claim in info.claims))


def keepers(file: str) -> tuple[Keeper, ...]:
    """The processes of this host that have a file open for reading, as far as this user may see that.

    Args:
        file: The last part of the file's path, which no other file has.
    """
    found = []
    for pid in _pids():
        folder = f"/proc/{pid}/fd"
        try:
            descriptors = os.listdir(folder)  # noqa: PTH208 (names, not paths)
        except OSError:
            continue  # it has ended, or belongs to another user
        if any(_reads(pid, descriptor, file) for descriptor in descriptors):
            found.append(Keeper(pid, _program(pid)))
    return tuple(found)


def _pids() -> list[int]:
    try:
        return sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit())  # noqa: PTH208
    except OSError:
        return []


def _reads(pid: int, descriptor: str, file: str) -> bool:
    try:
        path = os.readlink(f"/proc/{pid}/fd/{descriptor}").removesuffix(" (deleted)")  # noqa: PTH115
        if path.rpartition("/")[2] != file:
            return False
        about = Path(f"/proc/{pid}/fdinfo/{descriptor}").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    flags = next((line.split()[1] for line in about.splitlines() if line.startswith("flags:")), "0")
    return int(flags, 8) & _WRITES_ONLY != os.O_WRONLY


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
