"""The names of the keys. Those of a namespace begin with ``lockkit:<namespace>:``, for rights by prefix.

The keys of one name share one hash tag, so they lie in one slot of a Cluster.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

from lockkit.errors import ConfigError
from lockkit.values.names import check_namespace, decode, encode
from lockkit_redis.private import slot_of

__all__ = [
    "Keys",
    "channel",
    "index",
    "mark",
    "mark_beside",
    "marking",
    "marks",
    "name_in",
    "namespace_in",
    "pattern",
    "pattern_of_all",
]

_BITS = 14
"""A Cluster has 2 ** 14 slots."""


class Keys(NamedTuple):
    """The keys of one name. Scripts get the first five, in this order; acquire also the mark of a drain."""

    queue: str
    deadlines: str
    claims: str
    fence: str
    tombstones: str
    record: str

    @classmethod
    def of(cls, namespace: str, name: str) -> Keys:
        """The keys of a name."""
        stem = f"lockkit:{namespace}:{{{encode(name)}}}:"
        return cls(*(stem + letter for letter in "qdcfgr"))


def index(namespace: str) -> str:
    """The ZSET of names that may have claims, by the time (ms since the epoch) up to which to believe it."""
    return f"lockkit:{namespace}:names"


def channel(namespace: str, client: str) -> str:
    """The channel on which a client's waiters are notified of their turn."""
    return f"lockkit:{namespace}:wake:{client}"


def mark(namespace: str) -> str:
    """The mark of a drained namespace."""
    return f"lockkit:{namespace}:drain"


def marking(namespace: str) -> str:
    """The key that is there while a client changes the mark in all slots of a Cluster."""
    return f"lockkit:{namespace}:draining"


def mark_beside(namespace: str, queue: str) -> str:
    """The mark of a namespace in the slot of a queue, on a Cluster."""
    return f"lockkit:{namespace}:{{{_tag(slot_of(queue.encode()))}}}:drain"


def marks(namespace: str) -> Sequence[str]:
    """The marks of a namespace in the slots of a Cluster, by slot."""
    return [f"lockkit:{namespace}:{{{tag}}}:drain" for tag in _tags()]


@functools.cache
def _tags() -> Sequence[str]:
    return [_tag(slot) for slot in range(1 << _BITS)]


def _tag(slot: int) -> str:
    """A hash tag of a slot."""
    zero_slot, flip_for_bit = _digits()
    wanted, digits = slot ^ zero_slot, 0
    for bit in range(_BITS):
        if wanted >> bit & 1:
            digits ^= flip_for_bit[bit]
    return f"{digits:0{_BITS}b}"


@functools.cache
def _digits() -> tuple[int, list[int]]:
    """The 14-digit hash tags of 0 and 1: the slot of 14 zeros, and for each slot bit the digits that flip it.

    A slot is the last 14 bits of a CRC, which is linear: each digit flips the same bits whatever the others
    are. So the digits solve 14 linear equations, by Gauss-Jordan elimination over GF(2).
    """
    zero_slot = slot_of(b"0" * _BITS)
    rows = [(slot_of(f"{1 << digit:0{_BITS}b}".encode()) ^ zero_slot, 1 << digit) for digit in range(_BITS)]
    for bit in range(_BITS):
        at = next(at for at in range(bit, _BITS) if rows[at][0] >> bit & 1)
        rows[bit], rows[at] = rows[at], rows[bit]
        for other in range(_BITS):
            if other != bit and rows[other][0] >> bit & 1:
                rows[other] = rows[other][0] ^ rows[bit][0], rows[other][1] ^ rows[bit][1]
    return zero_slot, [digits for _, digits in rows]


def pattern(namespace: str) -> str:
    """The pattern that matches the queue key of every name."""
    return f"lockkit:{namespace}:{{*}}:q"


def pattern_of_all() -> str:
    """A pattern that matches the queue keys and the marks of all namespaces, and few others."""
    return "lockkit:*[qn]"


def namespace_in(queue: str) -> str:
    """The namespace that a queue key belongs to; empty if another program's key only looks like one."""
    namespace = queue.partition(":")[2].partition(":")[0]
    try:
        return check_namespace(namespace)
    except ConfigError:
        return ""


def name_in(queue: str) -> str:
    """The name that a queue key belongs to."""
    return decode(queue.partition("{")[2].rpartition("}")[0])
