"""The names of the keys. Those of a namespace begin with ``lockkit/<namespace>/``, for rights by prefix.

Queues, notes and records have prefixes of their own, and names are percent-encoded, so no lock name can be
mistaken for another, or for a bookkeeping key.

The key of a claim consists of its client and a number, and serves again for the client's next claim on the
name. New keys would make a name slower with every use, because until it compacts etcd also walks deleted
keys. The value says which claim has the key.
"""

from __future__ import annotations

import itertools

from lockkit.errors import ConfigError
from lockkit.values.names import check_namespace, decode, encode
from lockkit_etcd.transport import Get, after

__all__ = [
    "ROOT",
    "RecycledKeys",
    "guard_of",
    "is_guard",
    "mark",
    "name_in",
    "namespace_in",
    "note",
    "notes",
    "queue",
    "queues",
    "record",
]

ROOT = b"lockkit/"
"""The beginning of all keys of all namespaces."""
_NAMES = 16_384
"""Names of which free keys are remembered."""
_KEPT = 64
"""Free keys of one name that are remembered. A forgotten key only makes the history of its name longer."""
_GUARD = b"+"
"""The end of a guard's key, after its claim's key. A guard blocks for its claim until since + min_hold."""


def namespace_in(key: bytes) -> str:
    """The namespace of a key below :data:`ROOT`; empty if another program's key only looks like one."""
    try:
        return check_namespace(key.split(b"/")[1].decode())
    except (ConfigError, ValueError):
        return ""


def queues(namespace: str) -> bytes:
    """The prefix of the keys of all queues."""
    return f"lockkit/{namespace}/q/".encode()


def queue(namespace: str, name: str) -> Get:
    """The keys of the queue of a name: each is a prefix, a client, and a number."""
    prefix = queues(namespace) + encode(name).encode() + b"/"
    return Get(prefix, after(prefix))


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


def mark(namespace: str) -> bytes:
    """The mark of a drained namespace."""
    return f"lockkit/{namespace}/drain".encode()


def record(namespace: str, name: str) -> bytes:
    """The record of a name."""
    return f"lockkit/{namespace}/r/{encode(name)}".encode()


class RecycledKeys:
    """The free keys of a client, by queue.

    Args:
        client: The client's name in keys; no other client has it.
    """

    def __init__(self, client: str) -> None:
        self._client = client.encode()
        self._numbers = itertools.count()
        self._free: dict[bytes, list[bytes]] = {}

    def take(self, queue: bytes) -> bytes:
        """A key in a queue that no claim of this client has, and that no request under way will write."""
        free = self._free.get(queue)
        if free:
            try:
                return free.pop()
            except IndexError:  # another thread has taken the last one
                pass
        return b"%s%s-%d" % (queue, self._client, next(self._numbers))

    def give_back(self, queue: bytes, key: bytes) -> None:
        """Take back a key under which nothing is stored, and that no request under way will write."""
        free = self._free.get(queue)
        if free is None:
            if len(self._free) >= _NAMES:
                self._free.clear()
            free = self._free.setdefault(queue, [])
        if len(free) < _KEPT:
            free.append(key)
