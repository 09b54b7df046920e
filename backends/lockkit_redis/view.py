"""Claims as stored, as facts for people. Times in the store are milliseconds since the epoch, by the server's clock."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

from lockkit.facts import NOTHING, ClaimInfo, ClaimState, Kind, LockInfo, Owner
from lockkit.names import claim_id
from lockkit.store.layouts import check_reader
from lockkit.store.owners import layout_in, owner_of
from lockkit_redis.connection import millis_of

__all__ = ["READER", "claim_info", "lock_info", "tokens"]

READER = 1
"""The newest ``min_reader`` that this code may touch."""


def claim_info(
    name: str,
    token: bytes,
    fence: bytes,
    deadline: bytes,
    state: bytes,
    owner: bytes | None,
    note: bytes | None,
    place: int,
) -> ClaimInfo:
    """One claim; ``place`` is 0 for the head."""
    stored = _object(state)
    check_reader(stored, READER, f"the queue of {name!r}")
    return ClaimInfo(
        name=name,
        claim_id=claim_id(token.decode()),
        state=cast("ClaimState", stored.get("state", "HELD")),
        owner=_owner(owner),
        fence=int(float(fence)),
        position=place,
        kind=cast("Kind", stored.get("kind", "mutex")),
        weight=int(stored.get("weight", 1)),
        capacity=int(stored.get("capacity", 1)),
        ttl=stored.get("ttl", 0) / 1e3,
        since=stored.get("since", 0) / 1e3,
        renewed=stored.get("renewed", 0) / 1e3,
        deadline=float(deadline) / 1e3,
        evicted=bool(stored.get("evicted")),
        note=_object(note) if note else NOTHING,
        layout=layout_in(stored),
    )


@lru_cache(maxsize=512)
def _owner(text: bytes | None) -> Owner:
    return owner_of(_object(text))


def lock_info(name: str, read: Sequence[Any]) -> LockInfo:
    """The queue of a name, without claims past their deadlines, from the replies to the four commands that read it."""
    queue, deadlines, claims, clock = read
    now = millis_of(clock)
    until = dict(_pairs(deadlines))
    fields: Mapping[bytes, bytes] = dict(_pairs(claims)) if isinstance(claims, list) else claims
    standing = [
        (token, fence)
        for token, fence in _pairs(queue)
        if token in fields and float(until.get(token, b"0")) > now
    ]
    return LockInfo(
        name,
        tuple(
            claim_info(
                name,
                token,
                fence,
                until[token],
                fields[token],
                fields.get(token + b":owner"),
                fields.get(token + b":note"),
                place,
            )
            for place, (token, fence) in enumerate(standing)
        ),
        now / 1e3,
    )


def tokens(read: Sequence[Any]) -> dict[str, str]:
    """The tokens of a queue, by claim id."""
    found = [token.decode() for token, _ in _pairs(read[0])]
    return {claim_id(token): token for token in found}


def _pairs(flat: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    return list(zip(flat[::2], flat[1::2], strict=True))


def _object(text: bytes | None) -> dict[str, Any]:
    try:
        value = json.loads(text) if text else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
