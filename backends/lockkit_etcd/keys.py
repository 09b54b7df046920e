"""The names of the keys. Everything of a namespace begins with ``lockkit/<namespace>/``, so rights can be given by prefix.

Queues, notes and records lie under prefixes of their own, and a name is percent-encoded, so no lock name can meet another
or a bookkeeping key.

The key of a claim is its client's and a number, and serves that client's next claim on the name: etcd walks the keys that a
range once had until it compacts, so a key for each claim would make a name slower with every use. Which claim it is, is in
the value.
"""

from __future__ import annotations

from typing import NamedTuple

from lockkit.names import decode, encode
from lockkit_etcd.transport import after

__all__ = ["Keys", "guard_of", "is_guard", "name_in", "note", "notes", "queues", "record"]

_GUARD = b"+"
"""After a claim's key: what blocks on when its claim is gone, until since + min_hold."""


class Keys(NamedTuple):
    """The range of keys of one queue: each is this, a client, and a number."""

    queue: bytes
    end: bytes

    @classmethod
    def of(cls, namespace: str, name: str) -> Keys:
        """The keys of a name."""
        queue = queues(namespace) + encode(name).encode() + b"/"
        return cls(queue, after(queue))


def queues(namespace: str) -> bytes:
    """The prefix of the keys of all queues."""
    return f"lockkit/{namespace}/q/".encode()


def guard_of(key: bytes) -> bytes:
    """The key of a claim's guard."""
    return key + _GUARD


def name_in(key: bytes) -> str:
    """The name whose queue a key belongs to."""
    return decode(key.split(b"/")[3].decode())


def is_guard(key: bytes) -> bool:
    """Whether a key is that of a guard."""
    return key.endswith(_GUARD)


def notes(namespace: str, client: str) -> bytes:
    """The prefix of the keys of all notes to a client. Each heartbeat reads them."""
    return f"lockkit/{namespace}/c/{client}/".encode()


def note(namespace: str, client: str, claim: str) -> bytes:
    """A note to a client, on one of its claims (by claim id)."""
    return notes(namespace, client) + claim.encode()


def record(namespace: str, name: str) -> bytes:
    """The record of a name."""
    return f"lockkit/{namespace}/r/{encode(name)}".encode()
