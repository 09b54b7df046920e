"""The terms of a lock, packed once: the part of each command that never changes."""

from __future__ import annotations

import json
from typing import NamedTuple

from lockkit.store.owners import packed_owner
from lockkit.store.spi import Terms
from lockkit_redis.connection import pack
from lockkit_redis.keys import Keys, mark, mark_beside
from lockkit_redis.scripts import ACQUIRE, RELEASE, RENEW

__all__ = ["PackedTerms", "millis"]


def millis(seconds: float) -> int:
    """Seconds as whole milliseconds, the store's unit."""
    return round(seconds * 1000)


class PackedTerms(NamedTuple):
    """Terms in the units of the store.

    Attributes:
        head, tail: The bytes before and after the changing words of an acquire, without its note.
        again: The same as ``tail``, and an empty note, for an acquire that creates nothing: it stores neither owner nor note.
        release, ends: The bytes before and after the changing words of a release.
        renew: The bytes before the changing words of a renewal of one claim.
    """

    keys: Keys
    head: bytes
    tail: bytes
    again: bytes
    release: bytes
    ends: bytes
    renew: bytes

    @classmethod
    def of(cls, namespace: str, terms: Terms, channel: str, *, cluster: bool) -> PackedTerms:
        """Pack the terms of a lock, on one server or on a Cluster."""
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
        keys = Keys.of(namespace, terms.name)
        drain = mark_beside(namespace, keys.queue) if cluster else mark(namespace)
        # The third word is the time from the grant to the first deadline; the fourth the state without its opening brace and without
        # the fields that change.
        said = _json(state)[1:]
        words = (terms.weight, terms.capacity, max(ends + delay, least), said)
        return cls(
            keys,
            ACQUIRE.head((*keys[:5], drain), 9),
            pack(*words, _json(packed_owner(terms.owner))).partition(b"\r\n")[2],
            pack(*words, "", "").partition(b"\r\n")[2],
            RELEASE.head(keys[:5], 5),
            pack(least, said).partition(b"\r\n")[2],
            RENEW.head(keys[:5], 2),
        )


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
