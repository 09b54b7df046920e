"""The queue of a name as it lies in Redis, read past the store's own code."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lockkit.values.names import encode

__all__ = ["PREFIX", "Lying", "queue", "queue_key", "queues"]

PREFIX = b"lockkit:default:"
"""The beginning of all keys of the default namespace."""


class Lying(NamedTuple):
    """One claim.

    Attributes:
        deadline: Milliseconds since the epoch; None if it has none, which is a mistake.
        state: What its own value says.
    """

    token: str
    fence: int
    deadline: int | None
    state: dict[str, Any]


def queue_key(name: str) -> str:
    """The key of the queue itself, by which a Cluster finds the node that has all of a name's keys."""
    return f"{PREFIX.decode()}{{{encode(name)}}}:q"


def queue(look: Any, name: str) -> list[Lying]:
    """The claims of a name in order of arrival, lapsed ones included; ``look`` is a client of redis-py."""
    return queues(look, [name])[name]


def queues(look: Any, names: Sequence[str]) -> dict[str, list[Lying]]:
    """The queues of several names, at one moment."""
    with look.pipeline(transaction=True) as pipe:
        for name in names:
            key = queue_key(name)[:-1]
            pipe.execute_command("ZRANGE", f"{key}q", 0, -1, "WITHSCORES")
            pipe.execute_command("ZRANGE", f"{key}d", 0, -1, "WITHSCORES")
            pipe.execute_command("HGETALL", f"{key}c")
        read = [_pairs(answer) for answer in pipe.execute()]
    return {name: _lying(*read[3 * at : 3 * at + 3]) for at, name in enumerate(names)}


def _lying(
    fences: Mapping[bytes, bytes], deadlines: Mapping[bytes, bytes], claims: Mapping[bytes, bytes]
) -> list[Lying]:
    return [
        Lying(
            token.decode(),
            int(float(fence)),
            int(float(deadlines[token])) if token in deadlines else None,
            json.loads(claims[token]),
        )
        for token, fence in fences.items()
    ]


def _pairs(flat: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
