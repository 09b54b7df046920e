"""The state of one open store: its sessions, its claims, and what it remembers."""

from __future__ import annotations

import math
import os
import threading
import time

from lockkit.errors import ConfigError
from lockkit.facts import Capabilities, ClaimInfo
from lockkit.store.connections import inherited
from lockkit.store.perlock import per_lock
from lockkit.store.spi import Claim, OpenOptions, Refused, Why
from lockkit.store.tombstones import Tombstones
from lockkit_zookeeper.address import Address, declared
from lockkit_zookeeper.entries import Entry
from lockkit_zookeeper.failures import not_connected
from lockkit_zookeeper.layout import Paths
from lockkit_zookeeper.node_data import PackedTerms
from lockkit_zookeeper.requests import access, left
from lockkit_zookeeper.session import Session

__all__ = ["ZooKeeperStore"]

_KNOWN = 16_384
_IDLE = 30.0
"""Seconds after which a session of a ttl that nobody uses any more is ended."""
_DEFAULT_TTL = 30.0


class ZooKeeperStore:
    """One open store.

    Attributes:
        can: The capabilities on these servers.
        known: The packed words of a lock.
        acl: The ACL of the nodes that are made here.
        heads: Claims in the way of a waiter as last seen, by path.
        empty: Queues in which the last claim of this client was alone, and which it has left.
    """

    def __init__(self, address: Address, options: OpenOptions) -> None:
        self.address = address
        self.clock = options.clock
        self._suspect = options.suspect
        self.can: Capabilities = declared(address)
        self.paths = Paths(address.chroot, options.namespace)
        self.acl = access(address)
        self.heads: dict[str, ClaimInfo] = {}
        self.empty: dict[str, None] = {}
        self._pid = os.getpid()
        self._mutex = threading.RLock()
        self._opening: dict[float, threading.RLock] = {}
        self._sessions: dict[float, Session] = {}
        self._old: list[Session] = []
        self._first: Session | None = None
        self._gone = Tombstones()
        self.known = per_lock(lambda terms: PackedTerms.of(terms, self.paths.queue(terms.name)))
        self._closed = False

    def mine(self) -> None:
        """Check that this process opened it.

        Raises:
            Refused: This process is a forked child.
        """
        if os.getpid() != self._pid:
            raise inherited(self.address.shown)

    # -- claims

    def sessions(self) -> tuple[Session, ...]:
        """The sessions that may have claims."""
        return (*self._sessions.values(), *self._old)

    def entry(self, token: str) -> tuple[Session, Entry] | None:
        """A claim of this client, unless it is definitely gone."""
        for session in self.sessions():
            entry = session.entries.get(token)
            if entry is not None:
                return session, entry
        return None

    def entries(self) -> list[tuple[Session, Entry]]:
        """The claims of this client that are not definitely gone."""
        with self._mutex:
            sessions = [*self._sessions.values(), *self._old]
        return [(session, entry) for session in sessions for entry in [*session.entries.values()]]

    def bury(self, token: str, why: Why = "late") -> None:
        """Note that a late copy of this token's create must grant nothing."""
        self._gone.bury(token, self.clock.now(), why)

    def buried(self, token: str) -> Why | None:
        """Why this token was given up within the last minute; None if it was not."""
        return self._gone.why(token, self.clock.now())

    # -- sessions

    def open(self, budget: float) -> None:
        """Connect, so that a wrong address or login is told at once.

        Raises:
            Refused: No server can be reached.
        """
        ttl = min(max(_DEFAULT_TTL, self.can.min_ttl), self.can.max_ttl)
        self._first = self._session(ttl, time.monotonic() + budget)

    def at(self, ttl: float, budget: float) -> Session:
        """A session whose timeout is this ttl, with at least half of it left.

        Raises:
            Refused: There is none in time; or the servers grant no such timeout, and the error says what they do.
        """
        end = time.monotonic() + budget
        timeout = math.ceil(round(ttl * 1000.0, 3)) / 1000.0
        session = self._session(timeout, end)
        if abs(session.timeout - timeout) > 0.001:
            self._drop(timeout, session)
            raise Refused(self._ungranted(ttl, session.timeout), retry=False)
        if not session.confirmed:
            session.poke()
            if not session.moved.wait(lambda: session.confirmed or bool(session.ended), left(end)):
                raise not_connected(self.address.shown, "the session was not confirmed in time")
        return session

    def _ungranted(self, ttl: float, granted: float) -> ConfigError:
        """The servers grant another timeout than was asked for: what they do grant, and what can be changed."""
        short = granted < ttl
        text = f"the server grants sessions of at {'most' if short else 'least'} {granted:g} s, not a ttl of {ttl:g}"
        hint = f"{'raise max' if short else 'lower min'}SessionTimeout in zoo.cfg on the servers"
        if self.can.min_ttl <= granted <= self.can.max_ttl:
            hint = f"say --ttl {granted:g} on the command line, ttl={granted:g} in code; or {hint}"
        elif not short:
            hint = f"write ?max_ttl={granted:g} in the URL and use that ttl, or {hint}"
        return ConfigError(f"{self.address.shown}: {text}", hint=hint)

    def any(self, budget: float) -> Session:
        """Some session, for what is nobody's claim."""
        for session in (*self._sessions.values(),):
            if session.connection.up and not session.ended:
                session.used = self.clock.now()
                return session
        first = self._first
        timeout = first.timeout if first is not None else min(_DEFAULT_TTL, self.can.max_ttl)
        return self._session(timeout, time.monotonic() + budget)

    def _session(self, timeout: float, end: float) -> Session:
        with self._mutex:
            opening = self._opening.setdefault(timeout, threading.RLock())
        with opening:  # nothing in here waits
            if self._closed:
                raise not_connected(self.address.shown, "it was closed")
            session = self._sessions.get(timeout)
            if session is None or session.ended:
                self._retire_idle()
                session = self._start(timeout)
        if not session.connection.up:
            session.connection.wait(end - time.monotonic())
        session.used = self.clock.now()
        return session

    def _start(self, timeout: float) -> Session:
        session = Session(
            self.address,
            self.paths,
            timeout,
            self.clock,
            self.can,
            lambda over: self._drop(timeout, over),
            lambda entry: self.bury(entry.token, entry.why),
            self._suspect,
        )
        try:
            session.start()
            self._sessions[timeout] = session
            if self._closed:  # closed meanwhile, perhaps before this session was known
                raise not_connected(self.address.shown, "it was closed")
        except BaseException:
            session.close(goodbye=True)
            raise
        return session

    def _drop(self, timeout: float, session: Session) -> None:
        """No claim is to join it any more."""
        session.retire()
        with self._mutex:
            if self._sessions.get(timeout) is session:
                del self._sessions[timeout]
                self._old = [*(old for old in self._old if not old.left), session]

    def _retire_idle(self) -> None:
        """End the sessions of ttls that have gone out of use, so that they do not add up."""
        now = self.clock.now()
        with self._mutex:
            idle = [
                (timeout, session)
                for timeout, session in self._sessions.items()
                if session is not self._first and now - session.used > _IDLE
            ]
        for timeout, session in idle:
            if session.retire():  # otherwise a claim has joined meanwhile
                self._drop(timeout, session)

    def vanish(self) -> None:
        """Let go of everything without a word, as a process does that is killed. For tests."""
        self._closed = True
        for session in [*self._sessions.values(), *self._old]:
            session.close(goodbye=False).join(1.0)

    def close(self) -> None:
        """Let go. A session with claims that stand is left to its timeout, one without is ended."""
        self._closed = True
        if os.getpid() != self._pid:
            return
        with self._mutex:
            sessions = [*self._sessions.values(), *self._old]
            self._sessions.clear()
            self._old.clear()
        ends = [session.close() for session in sessions]
        end = time.monotonic() + 0.5
        for thread in ends:
            if thread.is_alive():
                thread.join(left(end))

    # -- what is remembered of others

    def remember(self, path: str, info: ClaimInfo) -> None:
        """Keep what was seen of a claim that stands in the way."""
        if len(self.heads) >= 1024:
            self.heads.clear()
        self.heads[path] = info

    def left_empty(self, parent: str) -> None:
        """Remember that a queue should be empty."""
        if len(self.empty) >= _KNOWN:
            self.empty.clear()
        self.empty[parent] = None

    def should_be_empty(self, parent: str) -> bool:
        """Whether a queue should be empty: a guess, used for one try only."""
        return self.empty.pop(parent, _KNOWN) is None

    def session_of(self, claim: Claim, budget: float) -> Session:
        """The session of a claim of this client, else some session."""
        found = self.entry(claim.token)
        return found[0] if found is not None else self.any(budget)
