"""The calls that the store makes to etcd: eight and a watch, over any transport.

A transport is thread-safe and belongs to the process that made it: in a forked child every call is Refused before a
byte is sent. Each call takes ``budget``, the seconds it may take in all, and obeys it. Nothing is retried once bytes
are out, but for what may be asked twice without harm: reads, keepalives, and a request that was turned away because
its login had expired or that member had no leader. Every request goes out with etcd's metadata ``hasleader: true``, so
that a member without a leader says so at once.

A call ends with an answer, or raises one of:

- :class:`lockkit.store.spi.Refused`: definitely not done. All endpoints unreachable, too.
- :class:`lockkit.store.spi.Unknown`: it may be done, now or later.
- :class:`LeaseGone`, :class:`LeaseTaken`: definitely not done, because of the lease it names.

Which is which, one table says (:mod:`lockkit_etcd.failures`); what it does not list is Unknown.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol, TypeAlias

__all__ = [
    "Change",
    "Compare",
    "Delete",
    "Deleted",
    "Done",
    "Found",
    "Get",
    "Granted",
    "Header",
    "Kept",
    "Kv",
    "LeaseGone",
    "LeaseTaken",
    "News",
    "Op",
    "Put",
    "Remaining",
    "Status",
    "Stream",
    "Transport",
    "Txn",
    "TxnAnswer",
    "WatchEnded",
    "Watched",
    "after",
]


class LeaseGone(Exception):
    """There is no such lease (any more). Whatever named it was not done."""


class LeaseTaken(Exception):
    """``grant``: a lease with this id exists already."""


class Header(NamedTuple):
    """The header of an answer: the member, the raft term of the newest entry it had applied, and the store's revision."""

    member: int
    term: int
    revision: int


class Kv(NamedTuple):
    """A key as stored. ``created`` and ``modified`` are revisions; ``lease`` is 0 for none."""

    key: bytes
    value: bytes
    created: int
    modified: int
    lease: int


# -- requests


class Get(NamedTuple):
    """One key, or with ``end`` all from ``key`` up to and without it, in the order of the keys. ``limit`` 0 is none."""

    key: bytes
    end: bytes = b""
    keys_only: bool = False
    limit: int = 0


class Put(NamedTuple):
    """Write a key, bound to a lease (0: to none).

    Attributes:
        same_lease: Leave it bound to what it is bound to; the key must exist, or the whole request is Refused.
        same_value: Leave its value; likewise.
    """

    key: bytes
    value: bytes = b""
    lease: int = 0
    same_lease: bool = False
    same_value: bool = False


class Delete(NamedTuple):
    """Remove one key, or with ``end`` all from ``key`` up to and without it."""

    key: bytes
    end: bytes = b""


class Compare(NamedTuple):
    """True if ``what`` of the key stands so to ``to``; with ``end``, if that is true of every key from ``key`` to there.

    All three are 0 for a key that does not exist, and for a range without keys.
    """

    key: bytes
    what: Literal["CREATE", "MOD", "VERSION"]
    how: Literal["EQUAL", "LESS", "GREATER"]
    to: int
    end: bytes = b""


Op: TypeAlias = Get | Put | Delete


class Txn(NamedTuple):
    """If all of ``when`` is true do ``then``, else ``otherwise``; in one step. Not nested.

    With nothing but Gets it is a linearizable read, and may be sent twice.
    """

    when: tuple[Compare, ...]
    then: tuple[Op, ...]
    otherwise: tuple[Op, ...] = ()


# -- answers


class Found(NamedTuple):
    """To a Get. ``more``: the limit cut it short."""

    kvs: Sequence[Kv]
    more: bool = False


class Done(NamedTuple):
    """To a Put."""


class Deleted(NamedTuple):
    """To a Delete: how many ``keys`` it removed."""

    keys: int


class TxnAnswer(NamedTuple):
    """The answer to a transaction: which branch was done, and the answers of its ops, in order."""

    header: Header
    succeeded: bool
    answers: Sequence[Found | Done | Deleted]

    def found(self, at: int = -1) -> Sequence[Kv]:
        """The keys that the Get at a place (by default, the last op) found."""
        answer = self.answers[at]
        assert isinstance(answer, Found)
        return answer.kvs


class Granted(NamedTuple):
    """A new lease: the seconds the server gave it, which may be more than were asked for."""

    header: Header
    ttl: int


class Kept(NamedTuple):
    """An answered keepalive. ``ttl`` 0: there is no such lease (any more). ``sent``: CLOCK_BOOTTIME seconds."""

    ttl: int
    member: int
    term: int
    sent: float


class Remaining(NamedTuple):
    """How long a lease lasts without a keepalive, in whole seconds, rounded down; -1: there is no such lease."""

    ttl: int
    granted: int


class Status(NamedTuple):
    """The status of one member.

    Attributes:
        endpoint: The member's address, ``host:port``.
        leader: The member id of its leader; 0 if it has none.
        size: Bytes of the database file.
        in_use: Bytes of it that are in use.
        errors: Alarms, in etcd's own words.
        learner: The member has no vote, and serves no linearizable reads.
    """

    endpoint: str
    version: str
    member: int
    leader: int
    term: int
    size: int
    in_use: int
    errors: Sequence[str] = ()
    learner: bool = False


# -- watches


class Change(NamedTuple):
    """One change: ``kind`` and the key. A deleted key has no value, lease or ``created``; ``modified`` says when."""

    kind: Literal["PUT", "DELETE"]
    kv: Kv


class Watched(NamedTuple):
    """News on a stream: changes in order. None at all: the stream stands, from ``revision`` on."""

    revision: int
    changes: Sequence[Change]


class WatchEnded(NamedTuple):
    """The last news of a stream: cut, cancelled, refused, or its start was compacted away (then: from what on)."""

    why: str
    compacted: int = 0


News: TypeAlias = Watched | WatchEnded


class Stream(Protocol):
    """A watch that is running."""

    def close(self) -> None:
        """End it. Never blocks or raises; no news comes after a moment, WatchEnded neither."""


class Transport(Protocol):
    """See the module.

    Attributes:
        name: For ``doctor``: ``JSON gateway``, ``gRPC (python-etcd3)``.
        where: The endpoints as a user wrote them, without secrets.
    """

    @property
    def name(self) -> str: ...

    @property
    def where(self) -> str: ...

    def txn(self, request: Txn, budget: float) -> TxnAnswer:
        """Do a transaction.

        Raises:
            LeaseGone: A Put of the branch taken names a lease that is gone. Nothing was done.
        """

    def range(self, request: Get, budget: float) -> tuple[Header, Found]:
        """A linearizable read."""

    def grant(self, lease: int, ttl: int, budget: float) -> Granted:
        """Grant a lease under an id of the caller's choice (1 to 2**63 - 1), for so many seconds.

        Raises:
            LeaseTaken: There is one.
        """

    def revoke(self, lease: int, budget: float) -> None:
        """Revoke a lease: its keys go, and every later put that names it is refused.

        Raises:
            LeaseGone: There is none (any more).
        """

    def keepalive(self, leases: Sequence[int], budget: float) -> Mapping[int, Kept]:
        """Keep leases alive: what was answered, by id. One that was not answered is missing: nothing is known of it.

        Raises:
            Refused, Unknown: None of them was answered.
        """

    def remaining(self, lease: int, budget: float) -> Remaining:
        """Ask how long a lease lasts without a keepalive."""

    def status(self, budget: float) -> Sequence[Status | Exception]:
        """Ask each member for its status, in order; a Refused or Unknown stands in the place of one without an answer. Never raises."""

    def watch(
        self, key: bytes, end: bytes, start: int, heard: Callable[[News], None], also: Sequence[bytes] = ()
    ) -> Stream:
        """Watch the keys from ``key`` up to ``end``, from revision ``start`` on. Returns at once, never raises.

        Without an ``end`` only that key. ``also``: further single keys, none of them among those; what happens to different
        keys may be told in any order.

        ``heard`` is told the news, in order, on a thread of the transport's; it must not block. After WatchEnded comes
        nothing more: open another. A connection that is dead without saying so is noticed within 15 s where the
        operating system can.
        """

    def fresh(self) -> "Transport":
        """The same place over connections of its own, beginning with another endpoint where there are several."""

    def close(self) -> None:
        """Let go of connections and streams. Never raises, may be called twice."""


def after(prefix: bytes) -> bytes:
    """The end of the range of all keys that begin with a prefix, whose last byte must not be 255."""
    return prefix[:-1] + bytes([prefix[-1] + 1])
