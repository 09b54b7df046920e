"""Claims as stored, as facts for people. Stored times are epoch milliseconds, by the server's clock."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from lockkit.facts import ClaimInfo, LockInfo, Owner
from lockkit.store.layouts import unread
from lockkit.store.owners import layout_in
from lockkit.store.untrusted import claim_of, number, object_in, owner_of
from lockkit.values.names import claim_id
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
    told = object_in(state)
    stored = told or {}
    return claim_of(
        note,
        damaged=told is None or not _is_number(fence),
        name=name,
        claim_id=claim_id(token.decode(errors="replace")),
        state=stored.get("state", "HELD"),
        owner=_owner(owner),
        fence=int(float(fence)) if _is_number(fence) else 0,
        position=place,
        kind=stored.get("kind", "mutex"),
        weight=_whole(stored.get("weight", 1)),
        capacity=_whole(stored.get("capacity", 1)),
        ttl=_seconds(stored.get("ttl", 0)),
        since=_seconds(stored.get("since", 0)),
        renewed=_seconds(stored.get("renewed", 0)),
        deadline=float(deadline) / 1e3 if _is_number(deadline) else None,
        evicted=bool(stored.get("evicted")),
        evidence=unread(stored, READER),
        layout=layout_in(stored),
    )


@lru_cache(maxsize=512)
def _owner(text: bytes | None) -> Owner:
    return owner_of(object_in(text))


def _is_number(text: bytes) -> bool:
    """Whether a number as Redis writes the scores of a sorted set is finite."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _whole(value: object) -> object:
    """A number as Lua writes it, which has only one kind of them."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _seconds(value: object) -> float | None:
    told = number(value)
    return None if told is None else told / 1e3


def lock_info(name: str, read: Sequence[Any]) -> LockInfo:
    """The queue of a name, without lapsed claims, from the replies to the four commands that read it."""
    queue, deadlines, claims, clock = read
    now = millis_of(clock)
    until = dict(_pairs(deadlines))
    fields: Mapping[bytes, bytes] = dict(_pairs(claims)) if isinstance(claims, list) else claims
    standing = [
        (token, fence)
        for token, fence in _pairs(queue)
        if token in fields and _stands(until.get(token, b"0"), now)
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


def _stands(deadline: bytes, now: float) -> bool:
    return not _is_number(deadline) or float(deadline) > now


def tokens(read: Sequence[Any]) -> dict[str, str]:
    """The tokens of a queue, by claim id."""
    found = [token.decode(errors="replace") for token, _ in _pairs(read[0])]
    return {claim_id(token): token for token in found}


def _pairs(flat: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    return list(zip(flat[::2], flat[1::2], strict=True))
