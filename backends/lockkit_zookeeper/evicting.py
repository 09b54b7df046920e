"""Evict: nobody may be granted while the evicted holder can still believe that it holds.

A claim that surely waits is removed at once, in a step that happens only if everything that keeps it from holding still
stands. One that may hold is named by a **note** below ``c/<its session>``. Its client reads the notes behind every ``sync``, so
from the note on no basis of it grows: after one timeout of its session it cannot believe in it any more. Its client gives the
claim up by itself as soon as it has read; if it does not, the evictor removes note and claim in one step, once the time is
over, and only if it is still the same note.

The note lies on the evictor's own session, of a timeout that is not shorter than that of the claim's. So if the evictor dies
right away the note still stands until nobody can believe in the claim who has not read it. What nobody does then is to remove
the node of a claim whose client does not look while its session lives.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import kazoo.exceptions as theirs

from lockkit.errors import BackendUnavailable, ConfigError
from lockkit.facts import ClaimInfo, Evicted
from lockkit.names import claim_id
from lockkit.store.comparing import ROUNDS, overtaken
from lockkit.store.spi import Refused, Unknown
from lockkit_zookeeper.connection import Connection
from lockkit_zookeeper.failures import explained, not_connected
from lockkit_zookeeper.layout import Queue, client_of
from lockkit_zookeeper.node_data import claim_info as fact
from lockkit_zookeeper.node_data import unpacked
from lockkit_zookeeper.operating import listed, state_of
from lockkit_zookeeper.private import CheckVersion, Create2, Delete, Exists, GetData, Transaction
from lockkit_zookeeper.requests import ask, make_parents, remove
from lockkit_zookeeper.session import Session
from lockkit_zookeeper.store import ZooKeeperStore

__all__ = ["commit", "evict"]

_log = logging.getLogger("lockkit.zookeeper")
_EPHEMERAL = 1
_MOMENT = 1.0
"""Seconds that a request of the background may take."""
_LOOK = 0.5
"""Seconds between looks at whether the claim has gone, so that its note need not stay."""


def evict(store: ZooKeeperStore, name: str, claim: str, budget: float, *, now: bool) -> Evicted:
    """See :meth:`lockkit.store.spi.Backend.evict`."""
    end = time.monotonic() + budget
    connection, parent = store.any(budget).connection, store.paths.queue(name)
    for _ in range(ROUNDS):
        queue = listed(store, connection, name, end)
        place = next((at for at, each in enumerate(queue.claims) if claim_id(each.token) == claim), None)
        if place is None:
            return Evicted("ABSENT")
        path = f"{parent}/{queue.claims[place].node}"
        try:
            data, stat = ask(connection, GetData(path, None), end, "read a claim")
        except theirs.NoNodeError:
            return Evicted("ABSENT")
        said = unpacked(data, f"the queue of {name!r}")
        info = fact(name, queue.claims[place], place, state_of(queue, place, said), said, stat.czxid)
        if now:
            session = store.any(budget)
            note, made = _note(store, session, stat, claim, end)
            there = remove(connection, path, end)
            _later(
                session, _Eviction(store, session, path, note, made, stat, info, store.clock.now() + info.ttl)
            )
            return Evicted("REMOVED", claim=info) if there else Evicted("ABSENT")
        if not queue.surely_waits(place):
            return _marked(store, path, stat, info, end)
        if _removed(connection, parent, queue, place, end):
            return Evicted("REMOVED", claim=info)
    raise overtaken(f"the queue of {name!r}")


def commit(connection: Connection, operations: list[Any], end: float, doing: str) -> bool:
    """Do all of it in one step, or nothing; False if something is not as it was.

    Raises:
        Refused, Unknown: For any other reason.
    """
    results = ask(connection, Transaction(operations), end, doing)
    failures = [each for each in results if isinstance(each, Exception)]
    for each in failures:
        if isinstance(each, (theirs.NoNodeError, theirs.BadVersionError, theirs.NodeExistsError)):
            return False
    for each in failures:
        if not isinstance(each, (theirs.RolledBackError, theirs.RuntimeInconsistency)):
            raise explained(each, connection.where, doing)
    return not failures


def _removed(connection: Connection, parent: str, queue: Queue, place: int, end: float) -> bool:
    """Remove a claim that waits, if all that it waits for still stands: so it cannot have been granted."""
    standing = [CheckVersion(f"{parent}/{node}", -1) for node in queue.blockers(place)]
    path = f"{parent}/{queue.claims[place].node}"
    return commit(connection, [*standing, Delete(path, -1)], end, "evict a waiting claim")


def _marked(store: ZooKeeperStore, path: str, stat: Any, info: ClaimInfo, end: float) -> Evicted:
    session = _lasting(store, info.ttl, end)
    note, made = _note(store, session, stat, info.claim_id, end)
    _later(session, _Eviction(store, session, path, note, made, stat, info, 0.0))
    return Evicted("MARKED", store.clock.wall() + info.ttl, info._replace(evicted=True))


def _lasting(store: ZooKeeperStore, ttl: float, end: float) -> Session:
    """A session on which a note stands for at least a ttl if we die: of the longest timeout, if the servers grant that.

    They do grant that ttl, for there is a claim that has it.
    """
    try:
        return store.at(max(ttl, store.can.max_ttl), end - time.monotonic())
    except Refused as refusal:
        if not isinstance(refusal.error, ConfigError):
            raise
        return store.at(ttl, end - time.monotonic())


def _later(session: Session, eviction: _Eviction) -> None:
    """Have the keeper see to it.

    Raises:
        Refused: The session has ended meanwhile, and with it the note.
    """
    with session.mutex:
        if session.ended:
            raise not_connected(session.connection.where, f"a session was left: {session.ended}")
        session.maintenance.due.append(eviction)
    session.poke()


def _note(store: ZooKeeperStore, session: Session, stat: Any, claim: str, end: float) -> tuple[str, int]:
    """Name a claim to its session; the note's path and its czxid. Somebody else's note does as well."""
    parent = store.paths.notes(client_of(stat.ephemeralOwner))
    path = f"{parent}/{claim}"
    make = Create2(path, b"", store.acl, _EPHEMERAL)
    for _ in range(ROUNDS):
        try:
            _, note = ask(session.connection, make, end, f"create {path}")
        except theirs.NodeExistsError:
            note = ask(session.connection, Exists(path, None), end, f"look at {path}")
        except theirs.NoNodeError:
            make_parents(session.connection, parent, store.acl, end)
            continue
        if note is not None:
            return path, int(note.czxid)
    raise Refused(BackendUnavailable(f"{parent} keeps vanishing", hint="try again"))


class _Eviction:
    """An eviction that waits for its time; called by a thread of the session that has the note.

    Args:
        first: When to look first (CLOCK_BOOTTIME seconds): a claim that was removed at once needs its note for as long as its
            client may take to read it.
    """

    def __init__(
        self,
        store: ZooKeeperStore,
        session: Session,
        path: str,
        note: str,
        made: int,
        stat: Any,
        info: ClaimInfo,
        first: float,
    ) -> None:
        self._store = store
        self._session = session
        self._path = path
        self._note = note
        self._stat = stat
        self._info = info
        self._made = made
        self.until = self._time()
        self._next = first
        self.needed = not first  # a note that was acted on may end with its session

    def _time(self) -> float:
        """When nobody can believe in the claim any more if the note was there all the time; our clock may be the faster one."""
        return (
            self._store.clock.now() + self._info.ttl * (1.0 + self._store.can.drift) + self._store.can.margin
        )

    def __call__(self, now: float) -> float:
        if now < self._next:
            return self._next
        self._next = now + _LOOK
        try:
            return 0.0 if self._done(now, time.monotonic() + _MOMENT) else self._next
        except (Refused, Unknown) as trouble:
            _log.debug("the eviction of %s on %r goes on: %s", self._info.claim_id, self._info.name, trouble)
            return self._next

    def _done(self, now: float, end: float) -> bool:
        connection = self._session.connection
        if ask(connection, Exists(self._path, None), end, "look at a claim") is None:
            remove(connection, self._note, end)
            return True
        note = ask(connection, Exists(self._note, None), end, "look at a note")
        if note is None or note.czxid != self._made:
            _, self._made = _note(self._store, self._session, self._stat, self._info.claim_id, end)
            self.until = self._time()
            return False
        if now < self.until:
            return False
        both = [CheckVersion(self._note, note.version), Delete(self._path, -1), Delete(self._note, -1)]
        return commit(connection, both, end, "evict a claim")
