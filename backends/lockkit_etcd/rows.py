"""A queue as stored: claims as JSON, in the order in which etcd created their keys."""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from lockkit.errors import BackendUnavailable, IncompatibleLayout
from lockkit.facts import ClaimInfo, ClaimState
from lockkit.store.comparing import overtaken
from lockkit.store.layouts import check_reader, unread
from lockkit.store.notes import note_of, note_text
from lockkit.store.owners import layout_in, packed_owner
from lockkit.store.queue import grantable
from lockkit.store.spi import NOTE_LIMIT, Claim, Refused, Terms
from lockkit.store.untrusted import claim_of, number, object_in
from lockkit.values.names import digest
from lockkit_etcd.keys import is_guard
from lockkit_etcd.keys import queue as queue_of
from lockkit_etcd.transport import Compare, Get, Kv, Remaining

__all__ = [
    "LAYOUT",
    "PackedTerms",
    "Row",
    "WaitingRow",
    "changing",
    "fitting",
    "id_of",
    "in_time",
    "last_of",
    "mark_of",
    "packed",
    "place_of",
    "read",
    "requests_in",
    "row_of",
    "rows",
    "seconds",
    "stored_of",
    "strange",
    "unpacked",
    "where_of",
]

LAYOUT = 1
_STATES = ("WAITING", "HELD", "LINGERING")
_TIMES = ("ttl", "max_hold", "lock_delay")
_ID, _MARK = 12, 32
"""Hex digits of a claim id, and of a mark, which distinguishes claims for certain."""


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
    def unchanged(self) -> Compare:
        """The condition that nobody has changed the claim since."""
        return Compare(self.key, "MOD", "EQUAL", self.modified)

    @property
    def requests(self) -> Mapping[str, Any] | None:
        """The note, if others have annotated it: their requests to the owner."""
        return requests_in(self.value)

    @property
    def evicted(self) -> bool:
        """Whether the claim is lost for its holder, who may not know yet."""
        return bool(self.value.get("evicted"))

    @property
    def leaving(self) -> bool:
        """Whether another client moves or moved the claim: no keepalive counts until its own client moves it.

        Such a client writes the id of the claim's lease into the claim. Clients of earlier versions, which
        move claims too, leave that number. Then the claim is on another lease than the number says: on one to
        which its own client has moved it, or on one that its note names.
        """
        return self.value.get("leaving") == self.lease

    @property
    def where(self) -> str:
        """The claim for logs: the last part of its key, which may be reused, and the creating revision."""
        return where_of(self.key, self.fence)

    @property
    def id(self) -> str:
        """The claim id, for places where tokens must not be seen."""
        return id_of(self.mark)

    def info(
        self,
        name: str,
        place: int,
        *,
        state: ClaimState | None = None,
        remaining: Remaining | None = None,
        wall: float = 0.0,
    ) -> ClaimInfo:
        """The claim for ``inspect``, in epoch seconds. ``place`` 0: the head; ``state`` replaces the stored.

        ``remaining`` is how long its lease had at ``wall`` (seconds since the epoch), where known, in whole
        seconds, rounded down; the deadline shown is the latest possible one.
        """
        value = self.value
        deadline, renewed = None, 0.0
        if remaining is not None:
            deadline = wall + max(remaining.ttl, 0) + 1.0
            renewed = deadline - remaining.granted
        return claim_of(
            value.get("note"),
            damaged=not value,
            name=name,
            claim_id=self.id,
            state=state or self.state,
            owner=value.get("owner"),
            fence=self.fence,
            position=place,
            kind=value.get("kind", "mutex"),
            weight=self.weight,
            capacity=self.capacity,
            ttl=value.get("ttl", 0.0),
            since=value.get("since", 0.0),
            renewed=renewed,
            deadline=deadline,
            evicted=self.evicted,
            evidence=unread(value, LAYOUT),
            layout=layout_in(value),
        )


class WaitingRow(NamedTuple):
    """A claim that waits, as its client has seen it.

    Attributes:
        modified: The revision that last changed the key.
        stored: The value, packed; empty if unchanged, because then the client can make it again.
    """

    key: bytes
    modified: int
    stored: bytes

    @property
    def changed(self) -> dict[str, Any] | None:
        """The value, if somebody has changed it since the client made it."""
        value: dict[str, Any] | None = json.loads(self.stored) if self.stored else None
        return value

    @property
    def unchanged(self) -> Compare:
        """The condition that nobody has changed the claim since."""
        return Compare(self.key, "MOD", "EQUAL", self.modified)


def stored_of(row: Row) -> bytes:
    """The value of a claim that waits, as its client keeps it; see :class:`WaitingRow`."""
    return b"" if row.modified == row.fence else packed(row.value)


def where_of(key: bytes, fence: int) -> str:
    """A claim for logs, and among the blockers of another; see :attr:`Row.where`."""
    return f"{key.rpartition(b'/')[2].decode(errors='replace')}@{fence}"


def last_of(where: str) -> bytes:
    """The last part of a claim's key, by its :attr:`Row.where`."""
    return where.rpartition("@")[0].encode()


def requests_in(value: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The note in a claim's value, if others have annotated it: their requests to the owner."""
    return note_of(value.get("note")) if value.get("asked") else None


def rows(kvs: Sequence[Kv], *, shown: bool = False) -> list[Row]:
    """The queue, in its order. A guard counts only once its claim is gone, and then in the same place.

    Args:
        kvs: The keys.
        shown: Whether the result is only shown to people; a malformed key is then an empty claim that holds.

    Raises:
        Refused: Something in it is not to be understood, or not to be touched by this version.
    """
    found = [_shown(kv) if shown else read(kv) for kv in kvs]
    if any(row.guard for row in found):
        standing = {row.mark for row in found if not row.guard}
        found = [row for row in found if not (row.guard and row.mark in standing)]
    found.sort(key=lambda row: row.fence)
    return found


def _shown(kv: Kv) -> Row:
    try:
        return read(kv)
    except Refused as refused:
        newer = isinstance(refused.error, IncompatibleLayout)
    mark = last_of(where_of(kv.key, kv.created)).decode(errors="replace")
    value = {"min_reader": LAYOUT + 1} if newer else {}
    return Row(mark, kv.created, "HELD", 1, 1, kv.modified, kv.lease, False, kv.key, value)


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
    if min(weight, capacity) < 1 or None in [number(value.get(name, 0)) for name in _TIMES]:
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
    value = object_in(kv.value)
    if value is None:
        raise strange(kv)
    least = value.get("min_reader", 0)
    if type(least) is not int:
        raise strange(kv)
    if "min_reader" in value:
        check_reader(value, LAYOUT, f"a key under {kv.key.rpartition(b'/')[0].decode(errors='replace')}")
    return value


def strange(kv: Kv) -> Refused:
    """The error for a key that lockkit has not written."""
    where = kv.key[: kv.key.rindex(b"/") + 1].decode(errors="replace")
    return Refused(
        BackendUnavailable(
            f"a key under {where} is not lockkit's: somebody else has written to it",
            hint=f"look for it: etcdctl get --prefix --keys-only {where}",
        ),
        retry=False,
    )


def changing(name: str) -> Refused:
    """The error for a queue that changes after each look."""
    return overtaken(f"the queue of {name!r}")


def in_time(name: str, end: float) -> None:
    """See that there is time for another look at a queue.

    Raises:
        Refused: Every look so far was overtaken, and the end on ``time.monotonic()`` has passed.
    """
    if time.monotonic() >= end:
        raise changing(name)


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
    """The place of a claim in a queue; -1 if it has none. A guard is not its claim."""
    for place, row in enumerate(queue):
        if row.mark == mark:
            return -1 if row.guard else place
    return -1


def row_of(queue: Sequence[Row], mark: str) -> Row | None:
    """A claim in a queue; None if it is absent. A guard is not its claim."""
    place = place_of(queue, mark)
    return queue[place] if place >= 0 else None


# -- written


def seconds(length: float) -> int:
    """A length of time in etcd's whole seconds, rounded up."""
    return max(1, math.ceil(length - 1e-6))


class PackedTerms(NamedTuple):
    """Terms in the units of the store.

    Attributes:
        queue: The keys of the lock's queue.
        length: Seconds; the length of the lease of a claim that holds.
        guard: Seconds; the length of the guard's lease, which blocks for min_hold; 0 for no guard.
        exclusive: A holder holds alone.
        tail: The end of the values of its claims.
    """

    terms: Terms
    queue: Get
    length: int
    guard: int
    exclusive: bool
    tail: str

    @classmethod
    def of(cls, namespace: str, terms: Terms, client: str) -> PackedTerms:
        """Pack the terms of a client's lock."""
        longest = terms.ttl if terms.max_hold is None else min(terms.ttl, terms.max_hold)
        return cls(
            terms,
            queue_of(namespace, terms.name),
            seconds(longest + terms.lock_delay),
            seconds(terms.min_hold) if terms.min_hold else 0,
            terms.weight == terms.capacity,
            _tail(terms._replace(name=""), client),
        )

    def value(self, claim: Claim, mark: str, state: str, since: float) -> bytes:
        """The value of a claim.

        Raises:
            ConfigError: The note is no JSON, or too long.
        """
        note = f'"note":{note_text(claim.note, NOTE_LIMIT)},' if claim.note else ""
        if not claim.wait and state == "WAITING":
            note = f'"try":true,{note}'
        return (
            f'{{"v":{LAYOUT},"claim":"{mark}","state":"{state}","since":{since:.6f},{note}{self.tail}'
        ).encode()


@functools.lru_cache(maxsize=64)
def _tail(terms: Terms, client: str) -> str:
    """The end of the values of a client's claims, which all its locks with the same terms share."""
    said: dict[str, object] = {
        "kind": terms.kind,
        "weight": terms.weight,
        "capacity": terms.capacity,
        "ttl": terms.ttl,
        "client": client,
        "owner": packed_owner(terms.owner),
    }
    for name in ("min_hold", "lock_delay", "max_hold"):
        if getattr(terms, name):
            said[name] = getattr(terms, name)
    return json.dumps(said, separators=(",", ":"), ensure_ascii=False)[1:]
