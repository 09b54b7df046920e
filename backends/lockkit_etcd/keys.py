"""The names of the keys. Everything of a namespace begins with ``lockkit/<namespace>/``, so rights can be given by prefix.

Queues, notes and records lie under prefixes of their own, and a name is percent-encoded, so no lock name can meet another
or a bookkeeping key.
"""

from __future__ import annotations

from typing import NamedTuple

from lockkit.names import claim_id, decode, encode
from lockkit_etcd.transport import after

__all__ = ["Keys", "guard_of", "id_in", "name_in", "note", "notes", "queues", "record", "token_in"]

_GUARD = b"+"
"""After a token: what blocks on when its claim is gone, until since + min_hold."""


class Keys(NamedTuple):
    """The range of keys of one queue: each is this and a token."""

    queue: bytes
    end: bytes

    @classmethod
    def of(cls, namespace: str, name: str) -> Keys:
        """That of a name."""
        queue = queues(namespace) + encode(name).encode() + b"/"
        return cls(queue, after(queue))

    def claim(self, token: str) -> bytes:
        """The key of a claim."""
        return self.queue + token.encode()


def queues(namespace: str) -> bytes:
    """What the keys of all queues begin with."""
    return f"lockkit/{namespace}/q/".encode()


def guard_of(key: bytes) -> bytes:
    """The key of what blocks on for a claim."""
    return key + _GUARD


def name_in(key: bytes) -> str:
    """The name whose queue a key belongs to."""
    return decode(key.split(b"/")[3].decode())


def token_in(key: bytes) -> tuple[str, bool]:
    """The token of a claim's key, and whether it is its guard's."""
    last = key[key.rindex(b"/") + 1 :]
    guard = last.endswith(_GUARD)
    return (last[:-1] if guard else last).decode(errors="replace"), guard


def id_in(key: bytes) -> str:
    """What a claim's key is called where tokens must not be seen; a guard's ends in ``+``."""
    token, guard = token_in(key)
    return claim_id(token) + ("+" if guard else "")


def notes(namespace: str, client: str) -> bytes:
    """What the keys of all notes to a client begin with. Each heartbeat reads them."""
    return f"lockkit/{namespace}/c/{client}/".encode()


def note(namespace: str, client: str, claim: str) -> bytes:
    """A note to a client, on one of its claims (by claim id)."""
    return notes(namespace, client) + claim.encode()


def record(namespace: str, name: str) -> bytes:
    """The record of a name."""
    return f"lockkit/{namespace}/r/{encode(name)}".encode()
