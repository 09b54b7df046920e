"""Evict: nothing is granted in place of an evicted claim while its lease can still be valid.

A claim that surely waits is removed at once, in a transaction that fails if a claim that keeps it from
holding is gone, or if its own data has changed. A claim that may hold is named by a **note** below ``c/<its
session>``. Its client reads the notes behind every beat, so the note keeps the claim's basis from moving, and
one session timeout later the lease is invalid. The client gives the claim up once it has read the note. If it
does not, the evictor then deletes note and claim in one transaction, if that note is still there.

The note belongs to a session of the evictor, whose timeout is not shorter than that of the claim's session.
So if the evictor dies at once, the note lasts until the lease of a client that has not read it is invalid.
Then nobody deletes the claim's node while the session of a client that does not read its notes lives.
"""

from __future__ import annotations

import time
from typing import Any

import kazoo.exceptions as theirs

from lockkit.errors import BackendUnavailable
from lockkit.facts import ClaimInfo, Evicted
from lockkit.store.comparing import ROUNDS, overtaken
from lockkit.store.log import Log
from lockkit.store.spi import Refused, Unknown
from lockkit_zookeeper.layout import client_of, read_queue
from lockkit_zookeeper.node_data import claim_info as fact
from lockkit_zookeeper.node_data import unpacked
from lockkit_zookeeper.operating import listed, state_of
from lockkit_zookeeper.private import CheckVersion, Create2, Delete, Exists, GetChildren, GetData
from lockkit_zookeeper.requests import Call
from lockkit_zookeeper.session import Session
from lockkit_zookeeper.store import ZooKeeperStore

__all__ = ["evict", "turn_away"]

_log = Log("lockkit.zookeeper")
_EPHEMERAL = 1
_MOMENT = 1.0
"""Seconds that a request in the background may take."""
_LOOK = 0.5
"""Seconds between two checks whether the claim is gone, so that its note can be deleted."""


def evict(store: ZooKeeperStore, name: str, claim_id: str, budget: float, *, now: bool = False) -> Evicted:
    """See :meth:`lockkit.store.spi.Backend.evict`. ``now=True`` removes before the holder knows."""
    return _evict(store, name, claim_id, budget, now=now)


def turn_away(store: ZooKeeperStore, name: str, claim_id: str, budget: float) -> bool:
    """See :meth:`lockkit.store.spi.Drains.turn_away`. Leaves alone a claim that fits: it may hold."""
    return _evict(store, name, claim_id, budget, waiting=True).outcome == "REMOVED"


def _evict(
    store: ZooKeeperStore,
    name: str,
    claim_id: str,
    budget: float,
    *,
    now: bool = False,
    waiting: bool = False,
) -> Evicted:
    """Evict a claim; with ``waiting``, a claim that does not surely wait counts as absent."""
    call, parent = store.call(budget), store.paths.queue(name)
    for _ in range(ROUNDS):
        claim = listed(store, call, name).called(claim_id)
        if claim is None:
            return Evicted("ABSENT")
        path = f"{parent}/{claim.node}"
        read, nodes = call.ask_all(GetData(path, None), GetChildren(parent, None))
        # Listed after the data was read: a resize in between writes to the data, and then nothing is removed.
        queue = read_queue(nodes or (), name)
        place = queue.place(claim.token)
        if read is None or place is None:
            return Evicted("ABSENT")
        data, stat = read
        said = unpacked(data, f"the queue of {name!r}")
        info = fact(name, queue.claims[place], place, state_of(queue, place, said), said, stat.czxid)
        if not now and queue.surely_waits(place):
            # If all that it waits for is still there it cannot have been granted.
            standing = [CheckVersion(f"{parent}/{node}", -1) for node in queue.blockers(place)]
            if call.commit([*standing, Delete(path, stat.version)]):
                return Evicted("REMOVED", claim=info)
            continue
        if waiting:
            return Evicted("ABSENT")
        eviction = _Eviction(
            store, store.any(call.end) if now else _lasting(store, info.ttl, call.end), path, stat, info
        )
        eviction.announce(call.end)
        if now:
            there = call.remove(path)
            eviction.begin(after=info.ttl)
            return Evicted("REMOVED", claim=info) if there else Evicted("ABSENT")
        eviction.begin()
        return Evicted("MARKED", store.clock.wall() + info.ttl, info._replace(evicted=True))
    raise overtaken(f"the queue of {name!r}")


def _lasting(store: ZooKeeperStore, ttl: float, end: float) -> Session:
    """Return a session with the longest timeout, so that a note lasts a ttl even if this process dies."""
    return store.at(max(ttl, store.capabilities.max_ttl), end, exact=True, lasting=ttl)


class _Eviction:
    """An eviction in progress; called by a thread of the session that has the note.

    Args:
        session: The session that the note is made on.
        path: The node of the claim.
        stat: The stat of that node.
        info: The claim.

    Attributes:
        needed: True if the note must exist until its time is over.
        until: CLOCK_BOOTTIME seconds from which the claim's lease is surely invalid.
    """

    def __init__(
        self, store: ZooKeeperStore, session: Session, path: str, stat: Any, info: ClaimInfo
    ) -> None:
        self._store = store
        self._session = session
        self._path = path
        self._info = info
        self._parent = store.paths.notes(client_of(stat.ephemeralOwner))
        self._note = f"{self._parent}/{info.claim_id}"
        self._made = 0
        self._next = 0.0
        self.needed = True
        self.until = 0.0

    def announce(self, end: float) -> None:
        """Name the claim to its session by a note; another evictor's note is as good.

        Raises:
            Refused, Unknown: The note may not exist.
        """
        call = Call(self._session.connection, end)
        for _ in range(ROUNDS):
            try:
                _, note = call.ask(Create2(self._note, b"", self._store.acl, _EPHEMERAL))
            except theirs.NodeExistsError:
                note = call.ask(Exists(self._note, None))
            except theirs.NoNodeError:
                call.make_parents(self._parent, self._store.acl)
                continue
            if note is not None:
                # The lease is invalid by then if the note stays. This clock may run faster than the holder's.
                can, now = self._store.capabilities, self._store.clock.now()
                self._made, self.until = note.czxid, now + self._info.ttl * (1.0 + can.drift) + can.margin
                return
        raise Refused(
            BackendUnavailable(
                f"{self._parent} was deleted each time before a note could be created in it", hint="try again"
            )
        )

    def begin(self, after: float | None = None) -> None:
        """Hand the eviction to the session's thread.

        Args:
            after: For a claim that was removed already: the seconds that its client may take to read the
                note, which may then end with its session.

        Raises:
            Refused: The session has ended meanwhile, and with it the note.
        """
        self.needed = after is None
        self._next = self._store.clock.now() + (after or 0.0)
        with self._session.mutex:
            self._session.check_open()
            self._session.maintenance.due.append(self)
        self._session.poke()

    def __call__(self, now: float) -> float:
        """Look whether the eviction is over; see :class:`lockkit_zookeeper.maintenance.Due`."""
        if now < self._next:
            return self._next
        self._next = now + _LOOK
        try:
            return (
                0.0
                if self._done(now, Call(self._session.connection, time.monotonic() + _MOMENT))
                else self._next
            )
        except (Refused, Unknown) as trouble:
            _log.debug(
                "evicting claim %s of %r is tried again: %s", self._info.claim_id, self._info.name, trouble
            )
            return self._next

    def _done(self, now: float, call: Call) -> bool:
        if call.ask(Exists(self._path, None)) is None:
            call.remove(self._note)
            return True
        note = call.ask(Exists(self._note, None))
        if note is None or note.czxid != self._made:
            self.announce(call.end)
            return False
        if now < self.until:
            return False
        return call.commit(
            [CheckVersion(self._note, note.version), Delete(self._path, -1), Delete(self._note, -1)]
        )
