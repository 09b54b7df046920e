"""The confirmation of a session: from when the validity of its claims counts.

**Basis.** Each session sends a **beat** at regular intervals: a ``sync``, or a write that changes nothing.
The beats must prove two facts: the leader has heard of the session, and it is still the leader. Each is
proved for some moment; the basis is the earlier of the two.

*The leader has heard of the session.* The answer of a follower does not prove this: a follower reports the
sessions that it heard from only when the leader asks, once a tick. (On three servers, counting from answered
pings made a session valid for three seconds too long.) So a beat counts once **two** others were answered
after it on the same connection, each sent at least one tick after the previous answer. One is not enough: a
leader that paused between the two, as for a garbage collection, answers the second before it asks its
followers. A connect request goes to the leader itself, which hears of the session at once.

*The leader is still the leader.* A leader that was deposed, and has not noticed, goes on answering connect
requests, pings and ``sync``s. But a majority of the servers must agree on a write. So a leader whose write is
answered was not deposed before the write was sent, and a later leader starts by giving each session its whole
timeout. So the first beat on each connection, and every third from there, is a **write**.

A read of the notes for this session follows each beat (see :mod:`lockkit_zookeeper.evicting`). So the basis
is never later than a read of the notes that did not name the claim. A basis that has run out ends every claim
of the session, for good.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import kazoo.exceptions as theirs

from lockkit.values.names import claim_id
from lockkit_zookeeper.answers import Answer
from lockkit_zookeeper.entries import Entry
from lockkit_zookeeper.layout import client_of
from lockkit_zookeeper.private import Delete, GetChildren, GetData, GetEphemerals, Sync, agreed, agreement

if TYPE_CHECKING:
    from lockkit_zookeeper.session import Session

__all__ = ["Confirming"]

_SHARE = 10.0
"""The session's timeout divided by the time between beats. A basis is at most three such intervals old."""
_CONFIRMED = 3
"""Consecutive answered beats after which the first of them counts. One beat in this many is a write."""
_PATIENCE = 3.0
"""The session's timeout divided by the time after which an unanswered beat has the client change servers."""


@dataclass(slots=True, eq=False)
class _Beat:
    """One ``sync`` or write, then a read of the notes; after a cut also of the session's own nodes."""

    sent: float
    turn: int
    writes: bool
    first: Answer
    notes: Answer
    listed: Answer | None
    nodes: list[tuple[Entry, str, Answer]]
    answered: float = 0.0

    @property
    def last(self) -> Answer:
        """The answer that comes last."""
        return self.nodes[-1][2] if self.nodes else self.listed or self.notes

    @property
    def answered_well(self) -> bool:
        """Whether the answer shows that the session was alive."""
        return self.first.successful() and (not self.writes or agreed(self.first.value))

    @property
    def ready(self) -> bool:
        return all(each.ready() for each in (self.first, self.notes, self.last))


class Confirming:
    """The beats of a session. :meth:`turn` is called by its keeper.

    Attributes:
        next: CLOCK_BOOTTIME seconds at which to call :meth:`turn` again.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._beat: _Beat | None = None
        self._row: list[_Beat] = []
        self._beats = 0
        self._led = 0.0
        self._back: float | None = None
        self._lists = True
        """Whether the servers can list a session's own nodes. Those before 3.6 cut the connection instead."""
        self._to_list = False
        """Whether to list the session's own nodes, since a cut; a connection's first beat never does."""
        self.next = 0.0

    def connected(self, back: float | None) -> None:
        """Start on a new connection.

        Args:
            back: CLOCK_BOOTTIME seconds of just before the connect request, of a session that comes back.
        """
        with self._session.mutex:
            self._back = self._back if back is None else back
            self._to_list = self._to_list or back is not None
            self.next = 0.0
            self.suspended()

    def suspended(self) -> None:
        """Begin anew: confirmations count only on one connection."""
        with self._session.mutex:
            self._beat = None
            self._row.clear()
            self._beats = 0

    def turn(self, now: float) -> None:
        """Take in what has been answered, and send the next beat in its time."""
        self._read_answers()
        self._send(now)

    def _send(self, now: float) -> None:
        """Send the next beat, or cut a connection whose beat has no answer."""
        session = self._session
        with session.mutex:
            if self._beat is not None:
                if now >= self._beat.sent + session.timeout / _PATIENCE:
                    self._beat = None
                    self.next = now + session.timeout / _SHARE
                    session.connection.bounce()
                return
            if not session.connection.up:
                self.next = now + 0.05
                return
            if now < self.next:
                return
            connection, sent, paths = session.connection, session.clock.now(), session.store.paths
            writes = self._beats % _CONFIRMED == 0
            first = connection.send(agreement(paths.root) if writes else Sync(paths.root))
            notes = connection.send(GetChildren(paths.notes(client_of(connection.session)), None))
            nodes, listed = [], None
            if self._to_list and self._lists and self._beats:
                listed = connection.send(GetEphemerals(f"{paths.queues}/", None))
                listed.rawlink(self._learn)
            if self._back is not None:  # watches went with the old connection, too
                for entry in session.entries.values():
                    if entry.path is not None and not entry.ended:
                        watch = session.maintenance.watcher(entry)
                        nodes.append((entry, entry.path, connection.send(GetData(entry.path, watch))))
            self._beat = beat = _Beat(sent, connection.turn, writes, first, notes, listed, nodes)
            self.next = sent + session.timeout / _PATIENCE
        beat.last.rawlink(lambda _: session.poke())

    def _read_answers(self) -> None:
        """Take in an answered beat, and what was read behind it."""
        session = self._session
        with session.mutex:
            beat = self._beat
            if beat is None or not beat.ready:
                return
            self._beat = None
            now = session.clock.now()  # not before it was answered
            self.next = now + max(session.store.address.tick, session.timeout / _SHARE)
            if not beat.answered_well or not self._read_notes(beat.notes):
                return
            beat.answered = now
            if beat.turn != session.connection.turn:
                return
            row = self._row
            if row and beat.sent < row[-1].answered + session.store.address.tick:
                return
            row.append(beat)
            self._beats += 1
            if beat.writes:
                self._led = beat.sent
            back, self._back = self._back, None
            if back is not None:
                session.move(back, now)
                self._look_at(beat.nodes)
            if beat.listed is not None and beat.listed.successful():
                self._to_list = False
                self._let_go(beat.listed.value)
            if len(row) >= _CONFIRMED:
                session.move(min(row[-_CONFIRMED].sent, self._led), now)
                del row[: 1 - _CONFIRMED]

    def _read_notes(self, notes: Answer) -> bool:
        """Mark the claims that the notes name; return whether the notes could be read."""
        if not notes.successful():
            return isinstance(notes.exception, theirs.NoNodeError)
        named, session = set(notes.value), self._session
        if named:
            for entry in [*session.entries.values()]:
                if not entry.evicted and claim_id(entry.token) in named:
                    entry.evicted = True
                    session.tell(entry)
        return True

    def _learn(self, listed: Answer) -> None:
        """Called at the answer, because the beat will have none: the cut comes right behind."""
        if isinstance(listed.exception, theirs.UnimplementedError):
            self._lists = False

    def _let_go(self, paths: Sequence[str]) -> None:
        """Delete nodes of claims that this session no longer has, such as those from a restored backup."""
        for path in paths:
            if path.rpartition("/")[2].partition("-")[0] not in self._session.entries:
                self._session.connection.send(Delete(path, -1))

    def _look_at(self, nodes: list[tuple[Entry, str, Any]]) -> None:
        """Check, after a cut, which nodes are there; have waiters ask again, as their watches are gone."""
        session = self._session
        for entry, path, answer in nodes:
            if entry.path != path:  # a try has withdrawn that node itself
                continue
            if answer.successful():
                session.maintenance.seen(entry, *answer.value)
            elif isinstance(answer.exception, theirs.NoNodeError):
                session.end(entry, "absent")
            for watcher in [*entry.watches]:
                watcher.arm()
                watcher.wake()
