"""The facts of the past. Those that may number a million are structs that the garbage collector skips."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from lockkit.facts import Kind, Owner
from lockkit.lib.namedtuples import NamedTuple

__all__ = [
    "ENDS",
    "Gaps",
    "Happening",
    "History",
    "PastHold",
    "PastResize",
    "PastStep",
    "PastWait",
    "StoreKey",
]

ENDS: Mapping[str, str] = {
    "released": "released",
    "lost": "lost",
    "max_hold": "ended by max_hold",
    "collected": "dropped without a release",
    "abandoned": "released without an answer",
    "absent": "gone at its release",
    "": "still held",
    "unknown": "its process has ended",
    "untold": "over, and its end was not written",
}
"""How a hold ended (``PastHold.end``), in words."""


class StoreKey(NamedTuple):
    """The store and namespace of a lock. The spelling of the store's URL does not matter.

    Attributes:
        store: The name of the store; see ``lockkit/config/store_names.py``.
        namespace: The namespace.
        within: The host, user or process to which the locks of the store reach; empty for a store of a fleet.
    """

    store: str
    namespace: str
    within: str = ""


class PastHold(Struct, frozen=True, gc=False):
    """One hold.

    Attributes:
        waited: Seconds from the call to the grant.
        began: Seconds since the epoch at which the grant had been read.
        ended: Seconds since the epoch at which the hold ended; None if the journals do not say.
        end: How it ended, a key of ``ENDS``.
        reason: Why it ended, as the event says.
        began_boottime: Seconds of CLOCK_BOOTTIME of the holder's host at ``began``.
        until_boottime: Seconds of CLOCK_BOOTTIME until which the holder was certain to hold; None if unknown.
        idle: Seconds for which a GPU was reported idle while it was held; it may have been idle for longer.
        ttl: Seconds that the store kept the claim without renewal, at its grant; None if not in the journals.
        latest: Seconds since the epoch, by the clock of the holder's host, by which a hold without an end was
            over: its max_hold, a ttl after an eviction or a drop, or its client's end; None if unknown.
        latest_elsewhere: The same by the clock of another host, from which it was evicted.
        told: Seconds since the epoch at which the end was written; long after ``ended`` if the clock was set.
    """

    key: StoreKey
    name: str
    claim_id: str
    fence: int
    owner: Owner
    began: float
    waited: float = 0.0
    ended: float | None = None
    end: str = ""
    reason: str = ""
    kind: Kind = "mutex"
    weight: int = 1
    capacity: int = 1
    began_boottime: float = 0.0
    until_boottime: float | None = None
    idle: float = 0.0
    ttl: float | None = None
    latest: float | None = None
    latest_elsewhere: float | None = None
    told: float | None = None


class PastStep(Struct, frozen=True, gc=False):
    """One step that a guarded resource has accepted or refused.

    Attributes:
        resource: The resource, as messages name it; with its host if two hosts have one of this name.
        kind: ``opened`` (the fence was registered), ``written`` or ``refused`` (the fence was stale).
        at: Seconds since the epoch at which its answer was read.
        boottime: Seconds of CLOCK_BOOTTIME of the holder's host at ``at``.
        lasted: Seconds from its beginning to ``at``; it took effect at some moment between them.
        stored: For a refusal the fence that was registered instead; 0 if none.
    """

    key: StoreKey
    name: str
    resource: str
    kind: Literal["opened", "written", "refused"]
    fence: int
    claim_id: str
    owner: Owner
    at: float
    boottime: float
    lasted: float = 0.0
    stored: int = 0


class PastWait(Struct, frozen=True, gc=False):
    """One attempt that ended without a hold.

    Attributes:
        outcome: ``busy``, ``timeout``, ``cancelled`` or ``failed``.
        ended: Seconds since the epoch.
        waited: Seconds.
        holder: The holder that was in the way, in words; empty if that is not known.
    """

    key: StoreKey
    name: str
    owner: Owner
    outcome: str
    ended: float
    waited: float
    holder: str = ""


class Happening(Struct, frozen=True, gc=False):
    """Anything else that happened: a loss, an eviction, a cleanup, an alert, a fault.

    Attributes:
        kind: The kind of the event, or of the alert.
        at: Seconds since the epoch.
        owner: The process that reported it.
        priority: P0, P1 or P2 for an alert; else empty.
        text: The rest of the event beside its kind: a reason, a message, or how a cleanup ended.
    """

    key: StoreKey
    kind: str
    at: float
    name: str
    claim_id: str
    owner: Owner
    priority: str = ""
    text: str = ""


class PastResize(NamedTuple):
    """A change of the capacity of a lock that had claims.

    Attributes:
        capacity: The new capacity.
        at: Seconds since the epoch at which it was asked for.
        boottime: Seconds of CLOCK_BOOTTIME of the host at ``at``.
        boot_id: The boot of the host.
        lasted: Seconds from ``at`` to its answer; it took effect at some moment between them.
    """

    capacity: int
    at: float
    boottime: float
    boot_id: str
    lasted: float = 0.0


class Gaps(NamedTuple):
    """The parts that are missing in the journals.

    Attributes:
        torn: Contents that could not be read.
        missed: Events that did not reach the journal, as it says itself.
        absent: Lines that were written, by their numbers, and are in no file. Lines before a writer's first
            one do not count if that is at least a day older than the requested time.
        unended: Processes that ended, or cannot be seen, with their journal open: last events may be missing.
        unheard: Holders that others met, and of which there is no journal, or none of this claim, in words.
        unreadable: Files that could not be read, or do not exist.
    """

    torn: int = 0
    missed: int = 0
    absent: int = 0
    unended: tuple[Owner, ...] = ()
    unheard: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return any(self)


class History(NamedTuple):
    """The past, as far as the journals know it; each part in the order of time.

    Attributes:
        first: Seconds since the epoch of the earliest line; None if there is no line.
        files: The files that were read.
        resized: The changes of capacity of each resized lock.
        unbegun: Holds whose end is in the journals, and whose beginning is not.
        steps: Steps that guarded resources accepted and refused; of earlier times, each one's highest fence.
    """

    holds: tuple[PastHold, ...] = ()
    waits: tuple[PastWait, ...] = ()
    happenings: tuple[Happening, ...] = ()
    gaps: Gaps = Gaps()
    first: float | None = None
    files: tuple[str, ...] = ()
    resized: Mapping[tuple[StoreKey, str], tuple[PastResize, ...]] = {}
    unbegun: int = 0
    steps: tuple[PastStep, ...] = ()

    def only(self, store: str | None, namespace: str | None) -> History:
        """The past of one store, one namespace, or both. All gaps stay: their store is unknown.

        Args:
            store: The store, as ``StoreKey.store`` has it; None for all.
            namespace: The namespace; None for all.
        """

        def asked(key: StoreKey) -> bool:
            return store in (None, key.store) and namespace in (None, key.namespace)

        return self._replace(
            holds=tuple(one for one in self.holds if asked(one.key)),
            waits=tuple(one for one in self.waits if asked(one.key)),
            happenings=tuple(one for one in self.happenings if asked(one.key)),
            resized={lock: found for lock, found in self.resized.items() if asked(lock[0])},
            steps=tuple(one for one in self.steps if asked(one.key)),
        )
