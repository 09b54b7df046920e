"""One session: its claims, and its keeper, a thread that works for the claims in the background.

A basis that has run out ends every claim of the session for good (see :mod:`lockkit_zookeeper.confirming`).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from lockkit.lib.bell import Bell
from lockkit.store.log import Log
from lockkit.store.spi import Claim, Why
from lockkit.store.starting import OneThread
from lockkit_zookeeper.answers import Crowd
from lockkit_zookeeper.confirming import Confirming
from lockkit_zookeeper.connection import Connection
from lockkit_zookeeper.drain_watch import DrainWatch
from lockkit_zookeeper.entries import Entry
from lockkit_zookeeper.failures import not_connected
from lockkit_zookeeper.maintenance import Maintenance
from lockkit_zookeeper.private import EndSession

if TYPE_CHECKING:
    from lockkit_zookeeper.store import ZooKeeperStore

__all__ = ["Session"]

_log = Log("lockkit.zookeeper")


class Session:
    """A session and its keeper.

    Args:
        timeout: Seconds to ask the servers for.

    Attributes:
        basis: CLOCK_BOOTTIME seconds from which the validity of its claims counts.
        asked: Seconds; the timeout that was asked for.
        timeout: Seconds; the timeout, which the servers may grant otherwise.
        entries: The session's claims by token, until they are definitely gone.
        ended: Why the session is over; empty while it is not.
        lost: True once the servers have ended the session, so that none of its nodes is left.
        closed: True once the client has closed the session.
        used: When a claim last asked for the session.
        drain_watch: The watch of the mark of a drain; None before the first one.
        drained: True if the mark was there when this session last looked.
    """

    def __init__(self, store: ZooKeeperStore, timeout: float) -> None:
        self.store = store
        self.clock = store.clock
        self.asked = self.timeout = timeout
        self.basis = 0.0
        self.entries: dict[str, Entry] = {}
        self.ended = ""
        self.lost = False
        self.closed = False
        self.used = self.clock.now()
        self.drain_watch: DrainWatch | None = None
        self.drained = False
        self.mutex = threading.RLock()
        self.moved = Crowd()
        self.maintenance = Maintenance(self)
        self.confirming = Confirming(self)
        self._next_lapse = float("inf")
        self._bell = Bell()
        self._keeper = OneThread(self._run, "lockkit-zookeeper-keeper")
        self.connection = Connection(
            store.address, timeout, self.clock, self._connected, self.confirming.suspended, self._lost
        )

    @property
    def span(self) -> float:
        """Seconds from its basis for which its claims are valid."""
        return self.timeout * (1.0 - self.store.capabilities.drift) - self.store.capabilities.margin

    @property
    def confirmed(self) -> bool:
        """True if at least half of its timeout is left."""
        return self.clock.now() <= self.basis + self.timeout / 2

    @property
    def alive(self) -> bool:
        """True while there may still be work to do for the session."""
        return self._keeper.running

    def start(self) -> None:
        """Connect, in the background: an exception of a signal handler must not tear what kazoo starts."""
        self._keeper.start()

    # -- claims

    def join(self, claim: Claim) -> Entry:
        """Take charge of a claim, before anything is sent for it.

        Raises:
            Refused: The session has ended meanwhile; ask the store for another one.
        """
        now = self.clock.now()
        entry = Entry(claim)
        entry.heard(now)
        with self.mutex:
            self.check_open()
            self.entries[claim.token] = entry
            self.used = now
            self._next_lapse = min(self._next_lapse, entry.deadline)
        return entry

    def check_open(self) -> None:
        """Check that the session has not ended.

        Raises:
            Refused: The session has ended.
        """
        if self.ended:
            raise not_connected(self.connection.where, f"its session was ended ({self.ended})")

    def grant(self, entry: Entry) -> bool:
        """Make a claim that fits HELD, unless it or the session has run out, or a read note names it."""
        with self.mutex:
            now = self.clock.now()
            if entry.ended or entry.evicted or self.run_out(now):
                return False
            if not entry.held:
                entry.hold(now, self.basis, self.span)
                self._next_lapse = min(self._next_lapse, entry.deadline)
            else:
                entry.renew(self.basis, self.span)
            return True

    def end(self, entry: Entry, why: Why) -> None:
        """End a claim: it is not granted or renewed from here on. Its node is still to be removed."""
        with self.mutex:
            if entry.ended:
                return
            entry.ended, entry.why = True, why
        self.tell(entry)

    def tell(self, entry: Entry) -> None:
        """Wake a claim's owner, if it waits; report the claim as lost, if its owner believes it held."""
        entry.wake()
        believed = entry.held and entry.why != "late"
        if believed and self.clock.now() < entry.deadline:  # later the holder knows by its own clock
            self.store.suspect(entry.token)

    def gone(self, entry: Entry) -> None:
        """Forget a claim whose node definitely does not exist and never will."""
        if self.forget(entry):
            self.store.bury(entry.token, entry.why)
        if entry.resized and entry.path is not None:
            self.maintenance.tidy(entry.path.rpartition("/")[0])

    def forget(self, entry: Entry) -> bool:
        """Give up the charge of a claim; return whether the session had it so far."""
        with self.mutex:
            return self.entries.pop(entry.token, None) is not None

    def withdraw(self, entry: Entry, why: Why) -> None:
        """End a claim, and remove its node in the background until that is definite."""
        self.end(entry, why)
        self.maintenance.remove(entry)

    def move(self, basis: float, now: float) -> None:
        """Move the basis, never back, unless it has run out."""
        if not self.run_out(now):
            self.basis = max(self.basis, basis)
            self.moved.wake()

    def run_out(self, now: float) -> bool:
        """Whether its claims may have lapsed, which is final."""
        return bool(self.ended) or now >= self.basis + self.span

    # -- the connection; called on kazoo's thread

    def _connected(self, began: float) -> None:
        granted = self.connection.granted
        if self.connection.turn > 1 and granted < self.timeout - 0.001:
            # No goodbye: holders are notified now, and have until the servers' shorter timeout to stop.
            self.over(f"the servers changed its timeout to {granted:g} s from {self.timeout:g} s")
            return
        with self.mutex:
            first = self.connection.turn == 1
            if first:
                self.timeout, self.basis = granted, began
            self.confirming.connected(None if first else began)
        self.moved.wake()
        self.poke()

    def _lost(self, ended: bool) -> None:  # noqa: FBT001
        with self.mutex:
            self.lost = self.lost or ended
        self.over("the session has ended" if ended else "the connection has ended")
        self.poke()

    def over(self, why: str) -> None:
        """End the session: no claim joins it any more, and its claims are lost."""
        with self.mutex:
            if self.ended:
                return
            self.ended = why
            entries = list(self.entries.values())
        self.moved.wake()
        for entry in entries:
            self.end(entry, "absent")
        self.store.drop(self)
        self.poke()

    def close(self, *, goodbye: bool | None = None) -> threading.Thread | None:
        """Close the session, in the background; no claim joins it any more.

        Args:
            goodbye: True to end the session on the servers, with all its nodes. Otherwise these stay until
                its timeout is over. None: say goodbye only if no claim of the session is left or under way.
        """
        with self.mutex:  # in one step with the look at its claims: otherwise a claim could join in between
            if goodbye is None:
                goodbye = not self.maintenance.needed_until and all(
                    entry.ended for entry in self.entries.values()
                )
            self.closed, self.ended = True, self.ended or "closed"  # the keeper looks at the second one first
        self.poke()
        return self.connection.close(goodbye=goodbye)

    def retire(self) -> None:
        """End the session if nobody uses it."""
        with self.mutex:
            if not self.ended and not self.entries and not self.maintenance.needed_until:
                self.close(goodbye=True)

    # -- the keeper

    def poke(self) -> None:
        """Wake the keeper."""
        self._bell.ring()

    def _run(self) -> None:
        self.connection.start()
        while not (self.ended or self.store.closed):
            try:
                wait = self._turn()
            except Exception:  # other claims depend on the keeper
                _log.exception("the keeper of a session with %s failed, and goes on", self.connection.where)
                wait = 0.2
            self._bell.wait(min(wait, 5.0))
        self.maintenance.stop()
        if self.closed or self.store.closed:
            self.close()  # again: a call may have been interrupted
        else:
            self._leave()

    def _leave(self) -> None:
        """End the session on the servers, once one of them answers and the validity of its claims is over.

        All claims of the session are ended, so nobody depends on it. Its nodes are in the way of waiters, and
        might be for long: each new leader gives every session its whole timeout again. Only a client with the
        session's password can end it; requests still under way on an earlier connection then have no effect.
        """
        self.connection.close(goodbye=False)
        if self.connection.identity is None:  # there never was a session
            self.lost = True
        elif not self.lost:
            self._end_on_the_servers(self.connection.identity)

    def _end_on_the_servers(self, identity: tuple[int, bytes]) -> None:
        while not self.store.closed and (wait := self._believed_until() - self.clock.now()) > 0:
            self._bell.wait(wait)
        connection = Connection(
            self.store.address,
            self.timeout,
            self.clock,
            connected=lambda _: self.poke(),
            lost=self._lost,
            identity=identity,
        )
        try:
            if not self.store.closed:
                connection.start()
            while not (self.store.closed or self.lost or connection.over):
                if not connection.up:
                    self._bell.wait(1.0)
                    continue
                answer = connection.send(EndSession())
                if answer.wait(1.0) and answer.successful():
                    self.lost = True
        finally:
            connection.close(goodbye=False)
        if not (self.store.closed or self.lost):
            _log.warning(
                "a session with %s could not be ended, and lasts until its timeout: %s",
                connection.where,
                connection.trouble,
            )

    def _believed_until(self) -> float:
        """When the validity of its claims is over and the notes of its evictions are not needed any more."""
        claims = [entry.deadline for entry in [*self.entries.values()] if entry.held]
        return max(*claims, self.maintenance.needed_until, 0.0)

    def _turn(self) -> float:
        now = self.clock.now()
        with self.mutex:
            if self.connection.turn and self.run_out(now):
                _log.warning(
                    "a session with %s was not confirmed in time; its claims are lost", self.connection.where
                )
                self.over("the session was not confirmed in time")
                return 0.0
            runs_out = self.basis + self.span if self.connection.turn else float("inf")
        self.confirming.turn(now)
        self._reap(now)
        again = self.maintenance.turn(self.clock.now())
        return min(again, runs_out, self._next_lapse, self.confirming.next) - self.clock.now()

    def _reap(self, now: float) -> None:
        """End the claims that are past their deadline, and remove them."""
        if now < self._next_lapse:
            return
        with self.mutex:
            standing = [entry for entry in self.entries.values() if not entry.ended]
            over = [entry for entry in standing if entry.deadline <= now]
            self._next_lapse = min(
                (entry.deadline for entry in standing if entry.deadline > now), default=float("inf")
            )
        for entry in over:
            self.withdraw(entry, entry.over)
