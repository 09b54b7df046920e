"""The parts of commands that never change, packed once; locks with the same terms share most of them."""

from __future__ import annotations

import functools
import json
from typing import NamedTuple

from lockkit.store.owners import packed_owner
from lockkit.store.spi import Terms
from lockkit_redis.connection import framed, pack
from lockkit_redis.keys import Keys, mark, mark_beside

__all__ = ["PackedTerms", "millis"]


def millis(seconds: float) -> int:
    """Seconds as whole milliseconds, the store's unit."""
    return round(seconds * 1000)


class Words(NamedTuple):
    """The words that the terms of a lock add to its commands: the same for all locks with the same terms.

    Attributes:
        acquire: The bytes after the changing words of an acquire, without its note.
        again: The same, with an empty note, for an acquire that creates nothing: it stores no owner or note.
        release: The bytes after the changing words of a release.
        ttl: The last word of a renewal.
    """

    acquire: bytes
    again: bytes
    release: bytes
    ttl: bytes


class PackedTerms(NamedTuple):
    """The parts of a lock's commands that never change.

    Attributes:
        queue: The key of the queue, by which a server of a Cluster is chosen.
        keys: The keys that a script is given, after its head (:attr:`lockkit_redis.scripts.Script.head`).
        drain: The mark of a drain, which is one more key of an acquire.
        words: The words by the terms.
    """

    queue: str
    keys: bytes
    drain: bytes
    words: Words

    @classmethod
    def of(cls, namespace: str, terms: Terms, channel: str, *, cluster: bool) -> PackedTerms:
        """Pack the terms of a lock, on one server or on a Cluster."""
        keys = Keys.of(namespace, terms.name)
        drain = framed(mark_beside(namespace, keys.queue)) if cluster else _framed_mark(namespace)
        packed = b"".join(map(framed, keys[:5]))
        return cls(keys.queue, packed, drain, _words(terms._replace(name=""), channel))


@functools.lru_cache(maxsize=64)
def _framed_mark(namespace: str) -> bytes:
    return framed(mark(namespace))


@functools.lru_cache(maxsize=64)
def _words(terms: Terms, channel: str) -> Words:
    ttl, delay, least = millis(terms.ttl), millis(terms.lock_delay), millis(terms.min_hold)
    longest = None if terms.max_hold is None else millis(terms.max_hold)
    ends = ttl if longest is None else min(ttl, longest)
    state = {
        "kind": terms.kind,
        "weight": terms.weight,
        "capacity": terms.capacity,
        "ttl": ttl,
        "min_hold": least,
        "lock_delay": delay,
        "wake": channel,
    }
    if longest is not None:
        state["max_hold"] = longest
    # Third word: the time from the grant to the first deadline. Fourth: the state without its opening brace
    # and the fields that change.
    said = _json(state)[1:]
    words = (terms.weight, terms.capacity, max(ends + delay, least), said)
    return Words(
        pack(*words, _json(packed_owner(terms.owner))).partition(b"\r\n")[2],
        pack(*words, "", "").partition(b"\r\n")[2],
        pack(least, said).partition(b"\r\n")[2],
        framed(str(ttl)),
    )


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
