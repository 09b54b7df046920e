"""The eviction of the claims of a pool process that is proved dead, with all that it has started.

Two proofs are needed. First, the process is dead: its pid belongs to no process with its time of start
(:mod:`lockkit.store.judging`). Second, nothing that it started lives: the worker's main process is the
subreaper of its descendants (PR_SET_CHILD_SUBREAPER(2const)), so they become its children before the parent
counts as dead, and no unknown child is as young as the dead process. In doubt the lock lapses after its ttl.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable

from lockkit.errors import LockkitError
from lockkit.facts import ClaimInfo, Keeper, LockInfo
from lockkit.integrations.celery.held_by_child import Note
from lockkit.integrations.celery.request import cause_of
from lockkit.lib.descent import children, descendants
from lockkit.lib.namedtuples import NamedTuple
from lockkit.lib.printable import printable
from lockkit.observe import journal
from lockkit.observe.decisions import ClaimFacts, Tiers, answer_of_this_host, decide
from lockkit.observe.survivors import program, survivors
from lockkit.store.log import Log
from lockkit.sync.client import Client
from lockkit.values.identity import look_at, same_start

__all__ = ["Dead", "free", "left_behind"]

_log = Log("lockkit")


class Dead(NamedTuple):
    """A process that has ended while it may have held locks.

    Attributes:
        pid: The pid of the process.
        started: The time at which it started, in seconds since boot.
        notes: The locks that it may have held.
        how: How the process ended, in words.
        at: The time at which its end was noticed, in seconds of :func:`time.monotonic`.
        exits: Whether it has noted itself that it ends, because of SystemExit.
    """

    pid: int
    started: float
    notes: Collection[Note]
    how: str
    at: float
    exits: bool = False


def left_behind(started: float, own: Collection[int]) -> tuple[Keeper, ...]:
    """Children of this process that it may not have started, but a process with this time of start may have.

    Args:
        started: The time of start of the process that has ended. Its children are not older.
        own: The pids of the children that this process has started.
    """
    mine = os.getpid()
    found = []
    # Both may miss a child: the kernel's list if another child ends, the other one if /proc hides users.
    for pid in sorted({*children(mine), *descendants(mine)} - {*own}):
        process = look_at(pid)
        if process is None:
            if _is_there(pid):
                found.append(Keeper(pid))
        elif (
            process.parent == mine
            and not process.ended
            and (process.started > started or same_start(process.started, started))
        ):
            found.append(Keeper(pid, program(pid)))
    return tuple(found)


def free(
    client: Client, dead: Dead, own: Collection[int], let_go: Callable[[], None] = lambda: None
) -> tuple[int, tuple[Keeper, ...]]:
    """Evict the claims of a process, once it and all that it has started are proved to be dead.

    Args:
        client: A client of the store in this process.
        dead: The process.
        own: The pids of the children that this process has started.
        let_go: Called after the proof: closes what keeps the process's claims alive in the embedded store.

    Returns:
        The number of its claims that are left, and the processes for whose sake they were left.

    Raises:
        LockkitError: The store did not answer. Some claims may have been evicted.
    """
    left, keep = 0, dict.fromkeys(left_behind(dead.started, own))
    for note in dead.notes:
        for info in _queues(client, note):
            for claim in info.claims:
                if _made_by(claim, dead):
                    keep |= dict.fromkeys(survivors(claim.claim_id))
    if not keep:
        let_go()
    for note in dead.notes:
        for info in _queues(client, note):
            for claim in info.claims:
                if not _made_by(claim, dead) or claim.state == "LINGERING":
                    continue
                # An eviction would cut short what blocks the lock on purpose.
                if claim.state == "HELD" and (
                    info.read_at - claim.since < note.min_hold or time.monotonic() - dead.at < note.lock_delay
                ):
                    left += 1
                    continue
                # Again, right before the eviction, to see a process that was forked during the first look.
                keep |= dict.fromkeys((*left_behind(dead.started, own), *survivors(claim.claim_id)))
                if not _evict(client, dead, note, ClaimFacts(
                    claim, info.read_at, (answer_of_this_host(claim),), tuple(keep)
                )):  # fmt: skip
                    left += 1
    return left, tuple(keep)


def _queues(client: Client, note: Note) -> Iterable[LockInfo]:
    names = [*note.names, *(client.names(note.prefix) if note.prefix else ())]
    return [client.inspect(name) for name in dict.fromkeys(names)]


def _made_by(claim: ClaimInfo, dead: Dead) -> bool:
    """Whether this process made a claim, if on this host, boot and pid namespace (see :func:`decide`)."""
    return claim.owner.pid == dead.pid and same_start(claim.owner.started, dead.started)


def _evict(client: Client, dead: Dead, note: Note, seen: ClaimFacts) -> bool:
    """Evict one claim if its owner is proved to be dead. Returns whether that was done."""
    claim = seen.claim
    decision = decide(seen, Tiers())
    if decision.action != "remove":
        return False
    word, cause = cause_of(note.task_id, "exit" if dead.exits else "task_crash")
    ran = f"process {dead.pid}, which ran {note.run}, {dead.how}"
    reason = printable(f"{word}: {ran}{f', because {cause}' if cause else ''}")
    about: dict[str, object] = {
        "action": "remove",
        "kind": decision.kind,
        "name": claim.name,
        "claim": claim.claim_id,
        "why": reason,
    }
    about |= {
        "seen": seen.evidence,
        "by": str(client.owner),
        "namespace": client.namespace,
        "url": client.url,
    }
    identity = _journalled(client, about)
    outcome = "unknown"
    try:
        outcome = client.evict(claim.name, claim.claim_id, reason=reason, now=True).outcome.lower()
    finally:
        _journalled(client, {"of": identity, "outcome": outcome})
    return True


def _journalled(client: Client, about: dict[str, object]) -> str:
    """Write to the journal of recovery; a journal that cannot be written prevents no eviction."""
    try:
        return journal.append(client.config.state_place().path, about, file=journal.ACTIONS)
    except (OSError, LockkitError) as error:
        _log.warning("%s", printable(f"the journal of recovery cannot be written: {error}"))
        return ""


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # sends no signal
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
