"""The requests of the store to etcd and etcd's answers, whichever transport carries them.

The answers are structs that the gateway's JSON is decoded into: a 64-bit number is a string there, bytes are
base64, and a field that is zero, false or empty is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, TypeAlias

from msgspec import Struct

__all__ = [
    "ORDERS",
    "Answer",
    "Change",
    "Compare",
    "Delete",
    "Found",
    "Get",
    "Granted",
    "Header",
    "Kept",
    "KeyOp",
    "Kv",
    "LeaseGone",
    "LeaseTaken",
    "News",
    "Op",
    "Put",
    "Ranged",
    "Remaining",
    "Status",
    "Stream",
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


# -- requests


class Get(NamedTuple):
    """One key, or with ``end`` all from ``key`` up to and without it, in key order. ``limit`` 0 is none.

    Attributes:
        until: Only keys created by this revision or an earlier one; 0 for all.
        first: In the order of their creation: the oldest first, or the newest first.
        at: As they were at this revision; 0 for now.
    """

    key: bytes
    end: bytes = b""
    keys_only: bool = False
    limit: int = 0
    until: int = 0
    first: Literal["", "oldest", "newest"] = ""
    at: int = 0


ORDERS = {"oldest": "ASCEND", "newest": "DESCEND"}
"""etcd's name for the order of each :attr:`Get.first`."""


class Put(NamedTuple):
    """Write a key, bound to a lease (0: to none).

    Attributes:
        same_lease: Leave its lease as it is; the key must exist, or the whole request is Refused.
    """

    key: bytes
    value: bytes = b""
    lease: int = 0
    same_lease: bool = False


class Delete(NamedTuple):
    """Remove one key, or with ``end`` all from ``key`` up to and without it."""

    key: bytes
    end: bytes = b""


class Compare(NamedTuple):
    """True if ``what`` of the key is EQUAL to, LESS or GREATER than ``to``; with ``end``, if all are.

    All three are 0 for a key that does not exist, and for a range without keys.
    """

    key: bytes
    what: Literal["CREATE", "MOD", "VERSION"]
    how: Literal["EQUAL", "LESS", "GREATER"]
    to: int
    end: bytes = b""


_NEVER: tuple[Literal["VERSION"], Literal["LESS"], int] = ("VERSION", "LESS", 0)
"""A comparison that is never true."""
KeyOp: TypeAlias = Get | Put | Delete


class Txn(NamedTuple):
    """If all of ``when`` is true do ``then``, else ``otherwise``, in one step. May be part of another one.

    With nothing but Gets it is a linearizable read. etcd refuses more than 128 operations, or comparisons, on
    a path from the outermost transaction to the innermost.
    """

    when: tuple[Compare, ...]
    then: tuple[Op, ...]
    otherwise: tuple[Op, ...] = ()

    @classmethod
    def logged(cls, gets: Sequence[Get], key: bytes) -> Txn:
        """Reads that go through raft's log, as writes do, so that no deposed leader answers. Writes nothing.

        A plain read is answered by a leader that has asked the members whether it still leads. Before 3.4.42,
        3.5.28 and 3.6.9 a paused leader may take old answers for new ones (etcd's issue 20418).

        Args:
            gets: The reads, in the order of the answers.
            key: A key that the user may write.
        """
        return cls((Compare(key, *_NEVER),), (Delete(key),), tuple(gets))

    @property
    def harmless(self) -> bool:
        """Whether it writes nothing, so that it may be sent twice."""
        never = any((each.what, each.how, each.to) == _NEVER for each in self.when)
        return never or all(type(op) is Get for op in (*self.then, *self.otherwise))

    @property
    def keyed(self) -> tuple[KeyOp, ...]:
        """All operations that name a key, those of transactions in this one included."""
        ops: list[KeyOp] = []
        for op in (*self.then, *self.otherwise):
            ops.extend(op.keyed if isinstance(op, Txn) else (op,))
        return tuple(ops)


Op: TypeAlias = KeyOp | Txn


# -- answers


class Header(Struct, gc=False, rename={"member": "member_id", "term": "raft_term"}):
    """The header of an answer: the member, the raft term of its newest applied entry, and the revision."""

    member: int
    term: int
    revision: int = 0


class Kv(Struct, rename={"created": "create_revision", "modified": "mod_revision"}):
    """A key as stored. ``created`` and ``modified`` are revisions; ``lease`` is 0 for none."""

    key: bytes
    value: bytes = b""
    created: int = 0
    modified: int = 0
    lease: int = 0


class Found(Struct):
    """The keys that a Get found.

    Attributes:
        more: The limit cut it short.
        count: The keys from ``key`` to ``end``, also those that a limit or a revision leaves out.
    """

    kvs: list[Kv] = []
    more: bool = False
    count: int = 0


class Ranged(Found, kw_only=True):
    """The answer to a read."""

    header: Header


class Answer(Struct, rename={"found": "response_range"}):
    """The answer to one operation of a transaction: what a Get found. Other answers say nothing new."""

    found: Found | None = None


class TxnAnswer(Struct, rename={"answers": "responses"}):
    """The answer to a transaction: which branch was done, and the answers to its ops, in order."""

    header: Header
    succeeded: bool = False
    answers: list[Answer] = []

    def found(self, at: int = -1) -> Sequence[Kv]:
        """The keys that the Get at a place (by default, the last op) found."""
        found = self.answers[at].found
        assert found is not None
        return found.kvs

    def count(self, at: int = -1) -> int:
        """The keys in the range of the Get at a place (by default, the last op)."""
        found = self.answers[at].found
        assert found is not None
        return found.count


class Granted(Struct, rename={"ttl": "TTL"}):
    """A new lease: the seconds the server gave it, which may be more than were wanted."""

    header: Header
    ttl: int


class Kept(NamedTuple):
    """An answered keepalive. ``ttl`` 0: there is no such lease. ``sent``: CLOCK_BOOTTIME seconds."""

    ttl: int
    member: int
    term: int
    sent: float


class Remaining(Struct, rename={"ttl": "TTL", "granted": "grantedTTL"}):
    """How long a lease lasts without a keepalive, in whole seconds, rounded down; -1: no such lease."""

    ttl: int = 0
    granted: int = 0


class Status(
    Struct, rename={"term": "raftTerm", "size": "dbSize", "in_use": "dbSizeInUse", "learner": "isLearner"}
):
    """The status of one member.

    Attributes:
        leader: The member id of its leader; 0 if it has none.
        size: Bytes of the database file.
        in_use: Bytes of it that are in use.
        errors: Alarms, in etcd's own words.
        learner: The member has no vote, and serves no linearizable reads.
        endpoint: The member's address, ``host:port``, which it does not say itself.
    """

    header: Header
    version: str = "unknown"
    leader: int = 0
    term: int = 0
    size: int = 0
    in_use: int = 0
    errors: list[str] = []
    learner: bool = False
    endpoint: str = ""


# -- watches


class Change(Struct, rename={"kind": "type"}):
    """One change: ``kind`` and the key. A deleted key has no value, lease or ``created``."""

    kv: Kv
    kind: Literal["PUT", "DELETE"] = "PUT"


class Watched(NamedTuple):
    """News on a stream: changes in order. None at all: the stream is up, from ``revision`` on."""

    revision: int
    changes: Sequence[Change]


class WatchEnded(NamedTuple):
    """The last news: the stream was cut, cancelled or refused, or its start compacted, up to a revision."""

    why: str
    compacted: int = 0


News: TypeAlias = Watched | WatchEnded


class Stream(Protocol):
    """A watch that is running."""

    def close(self) -> None:
        """End the watch. Never blocks or raises; after a moment there is no news, not even WatchEnded."""


def after(prefix: bytes) -> bytes:
    """The end of the range of all keys that begin with a prefix, whose last byte must not be 255."""
    return prefix[:-1] + bytes([prefix[-1] + 1])
