"""The use that each holder makes of a card: its processes on the card, and its own report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from lockkit.facts import ClaimInfo
from lockkit.gpu.devices import Device, DeviceProcess
from lockkit.gpu.noticing import news_in
from lockkit.lib.namedtuples import NamedTuple
from lockkit.values import durations
from lockkit.values.identity import boot_id, look_at, pid_space
from lockkit.values.sizes import MIB, show

__all__ = [
    "ADOPTED",
    "RESERVATION",
    "Use",
    "claimless",
    "granted",
    "live_uses",
    "parent_of",
    "unlocked",
    "use_of",
    "use_words",
    "used_by",
    "used_by_holder",
    "worker",
    "works_for",
]

ADOPTED: Final = "adopted"
"""The key of a note under which the keeper of a job that was adopted says which process that is."""
RESERVATION: Final = "reserved"
"""The key of a note by which everything that the owner's user computes on the card is the claim's."""
_DEEPEST = 64
"""Generations that are looked at. A chain that is longer was read while pids were used again."""


def granted(claims: Iterable[ClaimInfo]) -> tuple[ClaimInfo, ...]:
    """The claims that hold a card or may: ZooKeeper shows a waiter's grant a moment late, as OFFERED."""
    return tuple(one for one in claims if one.state != "WAITING")


def parent_of(pid: int) -> int:
    """The pid of a process's parent; 0 if there is none, or if that cannot be seen."""
    seen = look_at(pid)
    return 0 if seen is None else seen.parent


def works_for(pid: int, owner: int, parent: Callable[[int], int] = parent_of) -> bool:
    """Whether a process is ``owner`` or a descendant of it; one that has detached itself is a stranger."""
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
        parent: Returns the parent of a process.
    """
    if device.processes is None or any(one.pid is None for one in device.processes):
        return None
    sizes = [
        one.memory for one in device.processes if one.pid is not None and works_for(one.pid, owner, parent)
    ]
    return None if None in sizes else sum(size or 0 for size in sizes)


def worker(owner: int, note: Mapping[str, object]) -> int:
    """The pid of the process that works under a claim: the owner of the claim, or the job that it adopted."""
    job = note.get(ADOPTED)
    pid = job.get("pid") if isinstance(job, Mapping) else None
    return pid if isinstance(pid, int) and not isinstance(pid, bool) and pid > 0 else owner


def used_by_holder(device: Device, holder: ClaimInfo) -> int | None:
    """The bytes of a card that a holder of a part uses, if this process can see the holder; else None."""
    return used_by(device, worker(holder.owner.pid, holder.note)) if _is_seen(holder) else None


def unlocked(
    device: Device, holders: Iterable[ClaimInfo], parent: Callable[[int], int] = parent_of
) -> tuple[DeviceProcess, ...]:
    """The processes on a held card that work for none of its holders. Reads ``/proc``.

    No process is returned unless each holder is a visible process of this host. A detached process counts as
    one without a lock, one of unknown pid as its holder's. A reservation has all processes of its user.

    Args:
        device: The card.
        holders: The claims that hold it, or a part of it.
        parent: Returns the parent of a process.
    """
    every = tuple(holders)
    if not all(map(_is_seen, every)):
        return ()
    users = {one.owner.user for one in every if one.note.get(RESERVATION) is True}
    known = [one for one in device.processes or () if one.pid is not None and one.user not in users]
    strange = claimless([one.pid for one in known], every, parent)
    return tuple(one for one in known if one.pid in strange)


def _is_seen(holder: ClaimInfo) -> bool:
    """Whether a holder is a process of this host that can be seen from here, and has not ended."""
    owner = holder.owner
    here = bool(owner.boot_id) and owner.boot_id == boot_id() and owner.pid_space == pid_space() != 0
    return here and holder.process in ("alive", "stopped")


def claimless(
    pids: Iterable[int | None], holders: Iterable[ClaimInfo], parent: Callable[[int], int] = parent_of
) -> list[int | None]:
    """The processes that work under none of some claims, or cannot be told.

    Args:
        pids: The processes; None for one that cannot be told.
        holders: The claims.
        parent: Returns the parent of a process.
    """
    owners = {worker(one.owner.pid, one.note) for one in holders}
    return [pid for pid in pids if pid is None or not any(works_for(pid, owner, parent) for owner in owners)]


class Use(NamedTuple):
    """The use that a holder makes of a card.

    Attributes:
        declared: The bytes that it declared; None for a whole card.
        used: The bytes that it uses; None if unknown.
        idle_since: Since when the card is idle, in seconds since the epoch; None if it is not, or unknown.
    """

    declared: int | None = None
    used: int | None = None
    idle_since: float | None = None

    @property
    def too_much(self) -> bool:
        """Whether it is known that the holder uses more than it declared."""
        return self.declared is not None and self.used is not None and self.used > self.declared


def use_of(holder: ClaimInfo, live: int | None = None) -> Use:
    """The use that a holder of a card makes of it.

    Args:
        holder: The claim. Its weight is in MiB.
        live: The bytes that it uses now; None for its last report.
    """
    told = news_in(holder.note)
    used = live if live is not None or told is None else told.used
    declared = holder.weight * MIB if holder.weight < holder.capacity else None
    return Use(declared, used, None if told is None else told.idle_since)


def live_uses(device: Device, holders: Iterable[ClaimInfo]) -> dict[str, Use]:
    """The use of each holder of a card of this host, by claim id. Reads ``/proc``."""
    return {one.claim_id: use_of(one, used_by_holder(device, one)) for one in holders}


def use_words(use: Use, now: float) -> list[str]:
    """The use in words: ``8 GiB declared``, ``12 GiB used, more than declared``, ``idle for 25 min``."""
    told = [] if use.declared is None else [f"{show(use.declared)} declared"]
    if use.used is not None:
        told.append(f"{show(use.used)} used{', more than declared' if use.too_much else ''}")
    if use.idle_since is not None:
        told.append(f"idle for {durations.show(max(now - use.idle_since, 0.0))}")
    return told
