"""Background work for the claims of a session, by the keeper; evictions have a thread of their own.

The keeper waits for no answer. It removes nodes until that is definite, watches those of lasting claims,
notes in a claim's node after a while that it waits, and deletes the markers of resizes that are spent.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import kazoo.exceptions as theirs
from kazoo.protocol.states import EventType

from lockkit.store.log import Log
from lockkit.store.notes import note_of
from lockkit.store.spi import POLL_CAP, Refused
from lockkit.store.starting import OneThread
from lockkit_zookeeper.answers import Answer
from lockkit_zookeeper.entries import Entry
from lockkit_zookeeper.layout import read_queue
from lockkit_zookeeper.node_data import packed, unpacked
from lockkit_zookeeper.private import Delete, GetChildren, GetData, SetData, agreement

if TYPE_CHECKING:
    from lockkit_zookeeper.session import Session

__all__ = ["Maintenance"]

_log = Log("lockkit.zookeeper")
_MOMENT, _WHILE = 0.05, POLL_CAP
"""Seconds until the node of a held claim is watched, and more of them if it waits: most are gone before.

Until then a waiter learns of its node's end by heartbeats, each :data:`~lockkit.store.spi.POLL_CAP`.
"""
_FIRST_WAIT, _LONGEST_WAIT = 0.05, 0.8
_AGAIN = 0.5
_FOREVER = float("inf")


@dataclass(slots=True, eq=False)
class _Removal:
    """A node that is being removed.

    Attributes:
        since: When the removal started.
        next: When to ask next.
        answer: The answer to the delete, or to the listing that finds the node.
        first: The answer to the write before that listing; None for a delete.
        wait: Seconds to the next attempt after trouble.
        logged: True once trouble has been logged.
    """

    entry: Entry
    since: float
    next: float
    answer: Answer | None = None
    first: Answer | None = None
    wait: float = _FIRST_WAIT
    logged: bool = False


class Due(Protocol):
    """Work that is due later."""

    @property
    def needed(self) -> bool:
        """True if the end of the session would undo the work."""

    @property
    def until(self) -> float:
        """CLOCK_BOOTTIME seconds at which the work is due; until then the session must not be ended."""

    def __call__(self, now: float, /) -> float:
        """Do the work, if it is time; return when to call again, 0 for never."""


class Maintenance:
    """The background work of one session. The keeper calls :meth:`turn`, any thread the rest.

    Attributes:
        due: Evictions that are under way.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._removals: dict[str, _Removal] = {}
        self._young: deque[tuple[float, Entry]] = deque()
        self._later: deque[tuple[float, Entry]] = deque()
        self._untidy: dict[str, None] = {}
        self._evictor = OneThread(self._evict, "lockkit-zookeeper-evict")
        self._stopped = threading.Event()
        self.due: list[Due] = []

    def remove(self, entry: Entry) -> None:
        """Remove the node of a claim that has ended, until that is definite."""
        entry.resized = True  # unknown; assume the worst
        now = self._session.clock.now()
        self._removals.setdefault(entry.token, _Removal(entry, now, now))
        self._session.poke()

    def lasting(self, entry: Entry) -> None:
        """Watch the node of a new claim if it lasts; later note in it that the claim waits, if it does."""
        self._young.append((self._session.clock.now() + _MOMENT, entry))
        if len(self._young) == 1:
            self._session.poke()

    @property
    def needed_until(self) -> float:
        """CLOCK_BOOTTIME seconds up to which the end of the session would undo work; 0 if there is none."""
        return max((each.until for each in [*self.due] if each.needed), default=0.0)

    def tidy(self, parent: str) -> None:
        """Delete the markers in a queue that apply to no claim any more."""
        self._untidy[parent] = None
        self._session.poke()

    def turn(self, now: float) -> float:
        """Do what is due; return when to come again."""
        if not self._session.connection.up:
            return now + _AGAIN if self._removals or self._untidy or self.due else _FOREVER
        for removal in [*self._removals.values()]:
            self._remove(removal, now)
        while self._young and self._young[0][0] <= now:
            entry = self._young.popleft()[1]
            if entry.held:
                self._look(entry)
            else:
                self._later.append((now + _WHILE, entry))
        while self._later and self._later[0][0] <= now:
            entry = self._later.popleft()[1]
            self._note_wait(entry)
            self._look(entry)
        while self._untidy:
            self._tidy(self._untidy.popitem()[0])
        if self.due:
            self._evictor.start()
        removals = [removal.next for removal in [*self._removals.values()]]
        waits = [some[0][0] for some in (self._young, self._later) if some]
        return min([*removals, *waits, _FOREVER])

    def stop(self) -> None:
        """Stop: the session has ended."""
        self._stopped.set()

    def _evict(self) -> None:
        """Work on evictions, which wait for answers, as a keeper must not."""
        while self.due and not self._stopped.is_set():
            now = self._session.clock.now()
            again = now + _AGAIN
            for eviction in [*self.due]:
                next_ = eviction(now)
                if next_ == 0:
                    self.due.remove(eviction)
                else:
                    again = min(again, next_)
            self._stopped.wait(max(0.0, again - self._session.clock.now()))

    # -- removing

    def _remove(self, removal: _Removal, now: float) -> None:
        entry, session = removal.entry, self._session
        if removal.answer is not None and removal.answer.ready():
            if self._settled(removal, removal.answer, now):
                self._removals.pop(entry.token, None)
                session.gone(entry)
                return
            removal.answer = removal.first = None
        if removal.answer is not None or now < removal.next:
            return
        if entry.token not in session.entries:
            self._removals.pop(entry.token, None)
            return
        send = session.connection.send
        if entry.path is not None:
            removal.answer = send(Delete(entry.path, -1))
        else:  # its create had no answer; see `Call.settled`
            parent = session.store.paths.queue(entry.claim.terms.name)
            removal.first = send(agreement(parent))
            removal.answer = send(GetChildren(parent, None))
        removal.answer.rawlink(lambda _: session.poke())
        removal.next = now + _AGAIN

    def _settled(self, removal: _Removal, done: Answer, now: float) -> bool:
        """Whether the answers say that the node is gone and never comes; if not, set when to ask again."""
        entry, first = removal.entry, removal.first
        trouble = (first.exception if first is not None else None) or done.exception
        if trouble is not None:
            if trouble is done.exception and isinstance(trouble, theirs.NoNodeError):
                return True
            self._delay(removal, trouble, now)
            return False
        if first is None:
            return True
        node = next((node for node in done.value if node.startswith(f"{entry.token}-")), None)
        if node is None:
            return True
        entry.path = f"{self._session.store.paths.queue(entry.claim.terms.name)}/{node}"
        removal.next = now
        return False

    def _delay(self, removal: _Removal, trouble: object, now: float) -> None:
        session = self._session
        removal.next = now + removal.wait
        removal.wait = min(removal.wait * 2, _LONGEST_WAIT)
        if now - removal.since > session.timeout and not removal.logged:
            removal.logged = True
            _log.error(
                "the node of a claim that was given up cannot be removed from %s while its session lives: %r",
                session.connection.where,
                trouble,
            )

    # -- own nodes

    def watcher(self, entry: Entry) -> Callable[[Any], None]:
        """The watcher of a claim's own node."""
        if entry.watcher is not None:
            return entry.watcher
        path = entry.path

        def told(event: Any) -> None:
            if event.type == EventType.DELETED:
                self._vanished(entry, path)
            elif event.type == EventType.CHANGED and entry.path == path and not entry.ended:
                self._later.appendleft((0.0, entry))
                self._session.poke()

        entry.watcher = told
        return told

    def _vanished(self, entry: Entry, path: str | None) -> None:
        """End a claim whose node has gone, unless a try has withdrawn that node itself."""
        if entry.path == path:
            self._session.end(entry, "absent")
            self._session.gone(entry)

    def seen(self, entry: Entry, data: bytes, stat: Any) -> None:
        """Take in the data of a claim's own node."""
        try:
            said = unpacked(data, "a claim")
        except Refused:
            return
        entry.version = stat.version
        entry.requests = note_of(said.get("note")) if said.get("asked") else None
        entry.resized = entry.resized or "resized" in said

    def _look(self, entry: Entry) -> None:
        """Read and watch a claim's own node, and write the claim's state into it unless it is there."""
        if entry.ended or entry.path is None:
            return
        path = entry.path

        def read(done: Answer) -> None:
            if done.successful() and entry.path == path and not entry.ended:
                data, stat = done.value
                self.seen(entry, data, stat)
                if entry.granted is not None:
                    self._write(entry, data, {"granted": round(entry.granted, 3)})
                elif entry.waits and b'"waits":true' not in data:
                    self._write(entry, data, {"waits": True})
            elif isinstance(done.exception, theirs.NoNodeError):
                self._vanished(entry, path)

        self._session.connection.send(GetData(path, self.watcher(entry))).rawlink(read)

    def granted(self, entry: Entry, wall: float) -> None:
        """Note in the node of a claim that waited that it holds now; else others would see no holder.

        Args:
            entry: The claim.
            wall: When it was granted; seconds since 1970.
        """
        if entry.waits:
            entry.waits, entry.granted = False, wall
            self._look(entry)

    def _note_wait(self, entry: Entry) -> None:
        """Note in a claim's node that it waits, if it does. The caller's later watch sees no event of it."""
        with self._session.mutex:  # a grant from here on corrects this, after it was sent
            if entry.held or entry.waits or entry.ended or entry.path is None:
                return
            entry.waits = True
            if entry.version == 0:  # else somebody has written to the node, and the read shows what
                self._write(entry, entry.data, {"waits": True})

    def _write(self, entry: Entry, data: bytes, state: dict[str, object]) -> None:
        """Write the state of a claim into its node."""
        try:
            said = unpacked(data, "a claim")
        except Refused:  # the data is for people only
            return
        said.pop("waits", None)

        def written(done: Answer) -> None:
            if done.successful():
                entry.version = done.value.version
                if "granted" in state:
                    entry.granted = None  # until then another's write makes this be read and written again

        request = SetData(entry.path, packed({**said, **state}), entry.version)
        self._session.connection.send(request).rawlink(written)

    # -- resizes

    def _tidy(self, parent: str) -> None:
        connection = self._session.connection

        def read(listed: Answer) -> None:
            if not listed.successful():
                return
            try:
                spent = read_queue(listed.value, parent).spent
            except Refused:  # the queue has a node of another program; an acquire reports that
                return
            for node in spent:
                connection.send(Delete(f"{parent}/{node}", -1))

        connection.send(GetChildren(parent, None)).rawlink(read)
