"""The state of one open store: its sessions, its claims, and what it remembers."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator

from kazoo.security import ACL, OPEN_ACL_UNSAFE, Id, Permissions

from lockkit.errors import ConfigError
from lockkit.facts import Capabilities, ClaimInfo
from lockkit.lib.origin import this_origin
from lockkit.store.budgets import left
from lockkit.store.inherited import inherited
from lockkit.store.perlock import per_lock
from lockkit.store.spi import OpenOptions, Refused, Terms, Why
from lockkit.store.starting import join
from lockkit.store.tombstones import Tombstones
from lockkit.store.ttls import fitted, refused
from lockkit.values.names import claim_id
from lockkit_zookeeper.address import Address, declared, least, tick_warning
from lockkit_zookeeper.entries import Entry
from lockkit_zookeeper.failures import not_connected
from lockkit_zookeeper.layout import Paths
from lockkit_zookeeper.node_data import PackedTerms
from lockkit_zookeeper.requests import Call
from lockkit_zookeeper.session import Session

__all__ = ["HOLDER_READ_INTERVAL", "ZooKeeperStore"]

_HEADS, _EMPTY = 1024, 16_384
"""Claims and queues that are remembered; beyond that all are forgotten."""
_READS = 2
HOLDER_READ_INTERVAL = 1.0
"""A client reads the holder of one lock at most ``_READS`` times in this many seconds."""
_IDLE = 30.0
"""Seconds after which a session of a ttl that nobody uses any more is ended."""
_DEFAULT_TTL = 30.0
_MOST_SESSIONS = 8
"""Sessions of a client, each with a timeout of its own: each costs a connection and three threads."""
_SAME = 0.001
"""Seconds; the unit of the servers' timeouts."""


class ZooKeeperStore:
    """One open store. Thread-safe; of no use in a forked child.

    Attributes:
        closed: True once it is closed.
        capabilities: The capabilities here: as declared for the URL, narrowed by what was seen granted.
        suspect: Called with the token of a held claim that has ended without its holder's doing.
        known: Derives from the terms of a lock what all its claims have in common.
        acl: The ACL of the nodes that this client creates.
        heads: Claims in the way of a waiter as last seen, by path.
    """

    def __init__(self, address: Address, options: OpenOptions) -> None:
        self.address = address
        self.clock = options.clock
        self.suspect = options.suspect
        self.capabilities: Capabilities = declared(address)
        self._strict = options.strict
        self._warn = options.warn
        self._granted: Callable[[Terms], dict[float, Terms]] = per_lock(lambda _: {})
        self.paths = Paths(address.chroot, options.namespace)
        self.acl = _access(address)
        self.heads: dict[str, ClaimInfo] = {}
        self.known = per_lock(lambda terms: PackedTerms.of(terms, self.paths.queue(terms.name)))
        self._empty: dict[str, None] = {}
        self._reads: dict[str, list[float]] = {}
        self._origin = this_origin()
        self._default = min(max(_DEFAULT_TTL, self.capabilities.min_ttl), self.capabilities.max_ttl)
        self._mutex = threading.RLock()
        self._opening = threading.RLock()
        self._sessions: tuple[Session, ...] = ()
        self._gone = Tombstones()
        self.closed = False

    # -- claims

    def sessions(self) -> tuple[Session, ...]:
        """The sessions that may have claims.

        Raises:
            Refused: This process is a forked child of the one that opened the store.
        """
        if not self._origin.is_here():
            raise inherited(self.address.shown)
        return self._sessions

    def entry(self, token: str) -> tuple[Session, Entry] | None:
        """A claim of this client, unless it is definitely gone."""
        for session in self.sessions():
            entry = session.entries.get(token)
            if entry is not None:
                return session, entry
        return None

    def called(self, name: str, claim: str) -> Iterator[tuple[Session, str]]:
        """The session and the path of a claim of this client, by its claim id; nothing if it is unknown."""
        for session in self.sessions():
            for entry in list(session.entries.values()):
                if entry.claim.terms.name == name and entry.path and claim_id(entry.token) == claim:
                    yield session, entry.path

    def bury(self, token: str, why: Why = "late") -> None:
        """Note that a late copy of this token's create must grant nothing."""
        self._gone.bury(token, self.clock.now(), why)

    def buried(self, token: str) -> Why | None:
        """Why this token was given up within the last minute; None if it was not."""
        return self._gone.why(token, self.clock.now())

    # -- sessions

    def open(self, budget: float) -> None:
        """Connect, so that a wrong address or login is reported at once.

        Raises:
            Refused: No server can be reached.
        """
        self._session(self._default, time.monotonic() + budget)

    def for_claim(self, terms: Terms, end: float) -> tuple[Session, Terms]:
        """Return a session for a new claim, and the terms with the ttl granted: the session's timeout.

        Args:
            terms: The terms of the claim.
            end: When to give up, on ``time.monotonic()``.

        Raises:
            Refused: None in time; or too short a timeout is granted, or if ``strict`` not the one asked for.
        """
        ttl, exact = terms.ttl, self._strict and terms.asked is not None
        session = self.at(ttl, end, exact=exact)
        granted = session.timeout
        if exact and abs(granted - _timeout(ttl)) > _SAME:
            self.drop(session)
            raise Refused(refused(ttl, granted, self.capabilities, name=terms.name), retry=False)
        if granted == ttl:
            return session, terms
        # One object for each timeout, because what is derived from terms is kept by object.
        known = self._granted(terms)
        return session, known.setdefault(granted, terms._replace(ttl=granted))

    def at(self, ttl: float, end: float, *, exact: bool = False, lasting: float = 0.0) -> Session:
        """Return a session with a timeout as near to this ttl as the servers grant, and half of it left.

        Args:
            ttl: Seconds.
            end: When to give up, on ``time.monotonic()``.
            exact: Use no session with nearly this timeout.
            lasting: Seconds that the timeout is to have at least.

        Raises:
            Refused: None in time; or only a shorter timeout is granted than ``lasting``, or than is safe.
        """
        wish = ttl if exact else fitted(ttl, self.capabilities)
        session = self._session(_timeout(wish), end, 0.0 if exact else self.address.tick, lasting)
        needed = max(least(self.address.tick, self.address.margin), lasting)
        if session.timeout < needed - _SAME:
            self.drop(session)
            raise Refused(self._too_short(needed, session.timeout), retry=False)
        if not session.confirmed:
            session.poke()
            if not session.moved.wait(lambda: session.confirmed or bool(session.ended), left(end)):
                raise not_connected(self.address.shown, "the session was not confirmed in time")
        return session

    def _too_short(self, needed: float, granted: float) -> ConfigError:
        """Return the error for too short a timeout: what the servers grant, and how to change that."""
        tick, margin = self.address.tick, self.address.margin
        text = f"the servers grant sessions of at most {granted:g} s, and this needs {needed:g} s at least"
        hint = "raise maxSessionTimeout in zoo.cfg on the servers"
        if needed <= least(tick, margin):
            hint += (
                f"; the least follows from ticks of {tick:g} s: "
                "if tickTime in zoo.cfg is shorter, write it as ?tick="
            )
        return ConfigError(f"{self.address.shown}: {text}", hint=hint)

    def any(self, end: float) -> Session:
        """Return some session, for requests that are for no claim of this client.

        Raises:
            Refused: There is none in time.
        """
        for session in self.sessions():
            if session.connection.up and not session.ended:
                session.used = self.clock.now()
                return session
        return self._session(self._default, end)

    def call(self, budget: float) -> Call:
        """A call on the connection of some session; see :meth:`any`."""
        end = time.monotonic() + budget
        return Call(self.any(end).connection, end)

    def _session(self, timeout: float, end: float, near: float = 0.0, lasting: float = 0.0) -> Session:
        with self._opening:  # nothing in here waits
            if self.closed:
                raise not_connected(self.address.shown, "this store is closed")
            session = next(
                (each for each in self._sessions if not each.ended and each.asked == timeout), None
            )
            if session is None:
                session = self._nearest(timeout, near, lasting)
            if session is None:
                self._retire_idle()
                if self._is_full():  # better another ttl than none
                    session = self._nearest(timeout, math.inf, lasting)
            if session is None:
                session = self._start(timeout)
        if not session.connection.up:
            session.connection.wait(end - time.monotonic())
        session.used = self.clock.now()
        if session.timeout != session.asked:
            self._learn(session.asked, session.timeout)
        return session

    def _nearest(self, timeout: float, near: float, lasting: float) -> Session | None:
        """The open session of at least ``lasting`` seconds with the nearest timeout, within ``near``."""
        open_ones = [each for each in self._sessions if not each.ended and each.timeout >= lasting]
        nearest = min(open_ones, key=lambda each: abs(each.timeout - timeout), default=None)
        return None if nearest is None or abs(nearest.timeout - timeout) > near else nearest

    def _is_full(self) -> bool:
        """Whether no session may be added, after a try to end the longest unused one without claims."""
        open_ones = [each for each in self._sessions if not each.ended]
        if len(open_ones) < _MOST_SESSIONS:
            return False
        for session in sorted(open_ones, key=lambda each: each.used):
            if session.asked != self._default:
                self.drop(session)
                if session.ended:
                    return False
        return True

    def _learn(self, asked: float, granted: float) -> None:
        """Note a limit of the servers that showed when they granted another timeout than was asked for."""
        with self._mutex:
            can = self.capabilities
            if granted < asked and can.min_ttl <= granted < can.max_ttl:
                self.capabilities = can._replace(max_ttl=granted)
            elif granted > asked and granted > can.min_ttl:
                if granted > 2 * self.address.tick + _SAME:
                    self._warn("{}; {}".format(*tick_warning(granted, self.address.tick)))
                longest, waits = max(can.max_ttl, granted), max(can.waiter_deadline, granted)
                self.capabilities = can._replace(min_ttl=granted, max_ttl=longest, waiter_deadline=waits)

    def _start(self, timeout: float) -> Session:
        session = Session(self, timeout)
        try:
            session.start()
            self._keep(session)
            if self.closed:  # closed meanwhile, perhaps before this session was known
                raise not_connected(self.address.shown, "this store is closed")
        except BaseException:
            session.close(goodbye=True)
            raise
        return session

    def _keep(self, *new: Session) -> None:
        """Keep a new session, and forget those for which there is nothing to do any more."""
        with self._mutex:
            self._sessions = (*(each for each in self._sessions if not each.ended or each.alive), *new)

    def drop(self, session: Session) -> None:
        """Let no claim join a session any more."""
        session.retire()
        self._keep()

    def _retire_idle(self) -> None:
        """End the sessions of ttls that have gone out of use, so that they do not add up."""
        now = self.clock.now()
        for session in self._sessions:
            idle = session.asked != self._default and now - session.used > _IDLE
            if idle:
                self.drop(session)

    def close(self) -> None:
        """Close the store. A session without claims is ended; the others last until their timeout."""
        self.closed = True
        if not self._origin.is_here():
            return
        ends = [session.close() for session in self._sessions]
        with self._mutex:
            self._sessions = ()
        end = time.monotonic() + 0.5
        for thread in ends:
            join(thread, left(end))

    # -- what is remembered of others

    def remember(self, path: str, info: ClaimInfo) -> None:
        """Keep what was seen of a claim in the way."""
        if len(self.heads) >= _HEADS:
            self.heads.clear()
        self.heads[path] = info

    def may_read(self, parent: str) -> bool:
        """Whether to read who holds a lock for a waiter, counting it; False if it was read often just now."""
        now = self.clock.now()
        reads = [at for at in self._reads.get(parent, ()) if at > now - HOLDER_READ_INTERVAL]
        if len(reads) >= _READS:
            return False
        if len(self._reads) >= _HEADS:
            self._reads.clear()
        self._reads[parent] = [*reads, now]
        return True

    def left_empty(self, parent: str) -> None:
        """Remember that a queue should be empty: this client's claim was alone in it, and has gone."""
        if len(self._empty) >= _EMPTY:
            self._empty.clear()
        self._empty[parent] = None

    def should_be_empty(self, parent: str) -> bool:
        """Whether a queue should be empty: a guess, good for one try."""
        return self._empty.pop(parent, _EMPTY) is None


def _timeout(ttl: float) -> float:
    """A ttl in whole milliseconds, in seconds, as the servers count a timeout; never less than the ttl."""
    return math.ceil(round(ttl * 1000.0, 3)) / 1000.0


def _access(address: Address) -> list[ACL]:
    """Return the ACL of the nodes that a client of this URL creates."""
    if address.user is None:
        return list(OPEN_ACL_UNSAFE)
    acl = [ACL(Permissions.ALL, Id("auth", ""))]
    if address.observer is not None:
        acl.append(ACL(Permissions.READ, Id("digest", address.observer)))
    return acl
