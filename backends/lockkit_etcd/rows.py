"""A queue as stored: claims as JSON, in the order in which etcd created their keys."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from lockkit.errors import BackendUnavailable
from lockkit.facts import ClaimState
from lockkit.names import digest
from lockkit.store.comparing import overtaken
from lockkit.store.layouts import check_reader
from lockkit.store.queue import grantable
from lockkit.store.spi import Refused
from lockkit_etcd.keys import is_guard
from lockkit_etcd.transport import Kv

__all__ = [
    "LAYOUT",
    "Row",
    "changing",
    "fitting",
    "id_of",
    "mark_of",
    "packed",
    "place_of",
    "read",
    "rows",
    "strange",
    "unpacked",
]

LAYOUT = 1
_STATES = ("WAITING", "HELD", "LINGERING")
_ID, _MARK = 12, 32
"""Hex digits of a claim id, and of what tells claims apart for certain."""


class Row(NamedTuple):
    """One claim.

    Attributes:
        mark: The claim's name in stored values; see :func:`mark_of`.
        fence: The revision that created the key: its place in the order of arrival.
        state: WAITING, HELD or LINGERING. OFFERED is worked out: WAITING and it fits.
        modified: The revision that last changed the key.
        lease: The lease that the key lies on; the key ends with it.
        guard: The key is a guard: it blocks in place of a claim that is gone, until since + min_hold.
        value: All that is stored.
    """

    mark: str
    fence: int
    state: ClaimState
    weight: int
    capacity: int
    modified: int
    lease: int
    guard: bool
    key: bytes
    value: Mapping[str, Any]

    @property
    def holding(self) -> bool:
        """Whether the claim counts against the capacity."""
        return self.state != "WAITING"

    @property
    def evicted(self) -> bool:
        """Whether its holder is to be told that it is lost."""
        return bool(self.value.get("evicted"))

    @property
    def term(self) -> int:
        """The raft term of its lease; 0 for not known."""
        term = self.value.get("term", 0)
        return term if type(term) is int else 0

    @property
    def where(self) -> str:
        """The claim for logs: the last part of its key, which other claims may have had before, and the revision that created it."""
        return f"{self.key.rpartition(b'/')[2].decode(errors='replace')}@{self.fence}"

    @property
    def id(self) -> str:
        """The claim id, for places where tokens must not be seen."""
        return id_of(self.mark)


def rows(kvs: Sequence[Kv]) -> list[Row]:
    """The queue, in its order. A guard counts once its claim is gone, in the same place.

    Raises:
        Refused: Something in it is not to be understood, or not to be touched by this version.
    """
    found = [read(kv) for kv in kvs]
    if any(row.guard for row in found):
        standing = {row.mark for row in found if not row.guard}
        found = [row for row in found if not (row.guard and row.mark in standing)]
    found.sort(key=lambda row: row.fence)
    return found


def read(kv: Kv) -> Row:
    """One claim, or its guard.

    Raises:
        Refused: The value cannot be understood, or must not be touched by this version.
    """
    value = unpacked(kv)
    guard = is_guard(kv.key)
    mark, state, weight, capacity = (value.get(name) for name in ("claim", "state", "weight", "capacity"))
    if state not in _STATES or type(mark) is not str or type(weight) is not int or type(capacity) is not int:
        raise strange(kv)
    shown = cast("ClaimState", "LINGERING" if guard else state)
    place = value.get("place", kv.created) if guard else kv.created
    if type(place) is not int:
        raise strange(kv)
    return Row(mark, place, shown, weight, capacity, kv.modified, kv.lease, guard, kv.key, value)


def unpacked(kv: Kv) -> Mapping[str, Any]:
    """A value.

    Raises:
        Refused: The value is not lockkit's, or must not be touched by this version.
    """
    try:
        value = json.loads(kv.value)
    except (ValueError, RecursionError):
        raise strange(kv) from None
    if not isinstance(value, dict):
        raise strange(kv)
    least = value.get("min_reader", 0)
    if type(least) is not int:
        raise strange(kv)
    if "min_reader" in value:
        check_reader(value, LAYOUT, f"a key under {kv.key.rpartition(b'/')[0].decode(errors='replace')}")
    return value


def strange(kv: Kv) -> Refused:
    """The error for what is none of ours."""
    where = kv.key[: kv.key.rindex(b"/") + 1].decode(errors="replace")
    return Refused(
        BackendUnavailable(
            f"a key under {where} is not lockkit's: somebody else has written to it",
            hint=f"look for it: etcdctl get --prefix --keys-only {where}",
        ),
        retry=False,
    )


def changing(name: str) -> Refused:
    """The error for a queue of which every look is overtaken."""
    return overtaken(f"the queue of {name!r}")


def packed(value: Mapping[str, Any]) -> bytes:
    """A value as it is stored."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def fitting(queue: Sequence[Row]) -> int:
    """How many claims, from the front, may be granted."""
    return grantable(queue, [row.holding for row in queue])


def mark_of(token: str) -> str:
    """The name of a claim in stored values. It begins with the claim id, and does not reveal the token."""
    return digest(token)[:_MARK]


def id_of(mark: str) -> str:
    """The claim id that a mark begins with."""
    return mark[:_ID]


def place_of(queue: Sequence[Row], mark: str) -> int:
    """Where a claim stands; -1 if it does not. Its guard is not it."""
    for place, row in enumerate(queue):
        if row.mark == mark:
            return -1 if row.guard else place
    return -1
