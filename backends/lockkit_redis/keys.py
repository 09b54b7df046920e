"""The names of the keys. Everything of a namespace begins with ``lockkit:<namespace>:``, so rights can be given by prefix.

The keys of one name share one hash tag, so they lie in one slot of a Cluster.
"""

from __future__ import annotations

from typing import NamedTuple

from lockkit.errors import ConfigError
from lockkit.names import check_namespace, decode, encode

__all__ = ["Keys", "channel", "index", "name_in", "namespace_in", "pattern"]


class Keys(NamedTuple):
    """The keys of one name. Scripts are given the first five, in this order."""

    queue: str
    deadlines: str
    claims: str
    fence: str
    tombstones: str
    record: str

    @classmethod
    def of(cls, namespace: str, name: str) -> Keys:
        """The keys of a name."""
        return cls(*(f"lockkit:{namespace}:{{{encode(name)}}}:{letter}" for letter in "qdcfgr"))


def index(namespace: str) -> str:
    """The ZSET of names that may have claims, by the time (ms since the epoch) up to which to believe it."""
    return f"lockkit:{namespace}:names"


def channel(namespace: str, client: str) -> str:
    """The channel on which a client's waiters are told that it is their turn."""
    return f"lockkit:{namespace}:wake:{client}"


def pattern(namespace: str) -> str:
    """The pattern that matches the queue key of every name."""
    return f"lockkit:{namespace}:{{*}}:q"


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
