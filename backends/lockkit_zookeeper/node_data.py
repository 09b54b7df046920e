"""The data of a claim's node: JSON for people and for ``evict``. The queue rule never reads it."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from lockkit.facts import ClaimInfo, ClaimState
from lockkit.store.layouts import check_reader, unread
from lockkit.store.notes import note_text
from lockkit.store.owners import layout_in, packed_owner
from lockkit.store.spi import NOTE_LIMIT, Claim, Terms
from lockkit.store.untrusted import claim_of, number, object_in
from lockkit.values.names import claim_id
from lockkit_zookeeper.layout import Place

__all__ = ["VERSION", "PackedTerms", "claim_info", "packed", "unpacked"]

VERSION = 1
"""The version of the layout that is written, and the newest ``min_reader`` that this code may touch."""


class PackedTerms(NamedTuple):
    """The terms of a lock, packed once for all its claims.

    Attributes:
        parent: The path of the queue.
        between: The text between the token and the server's number, for a claim that waits and for a try.
        data: The JSON of the terms, without its closing brace: the time and the note of the claim follow.
    """

    parent: str
    between: tuple[str, str]
    data: str

    @classmethod
    def of(cls, terms: Terms, parent: str) -> PackedTerms:
        return cls(parent, *_words(terms._replace(name="")))

    def path(self, claim: Claim) -> str:
        """The path to create a claim's node with; the server appends the number."""
        return f"{self.parent}/{claim.token}{self.between[not claim.wait]}"

    def first(self, claim: Claim, wall: float) -> bytes:
        """The data of a new claim."""
        note = f',"note":{note_text(claim.note, NOTE_LIMIT)}' if claim.note else ""
        return f'{self.data},"since":{wall:.3f}{note}}}'.encode()


@functools.lru_cache(maxsize=64)
def _words(terms: Terms) -> tuple[tuple[str, str], str]:
    """The words that locks with the same terms share: ``between`` and ``data`` of :class:`PackedTerms`."""
    said: dict[str, object] = {"v": VERSION, "min_reader": VERSION, "kind": terms.kind, "ttl": terms.ttl}
    if terms.max_hold is not None:
        said["max_hold"] = terms.max_hold
    said["owner"] = packed_owner(terms.owner)
    waits = f"-{terms.weight}-{terms.capacity}-"
    return (waits, f"-0{waits[1:]}"), _json(said)[:-1]


def unpacked(data: bytes | None, what: str) -> dict[str, Any]:
    """The JSON of a node.

    Raises:
        Refused: With IncompatibleLayout, if this code must not touch it.
    """
    value = object_in(data) or {}
    check_reader(value, VERSION, what)
    return value


def packed(value: Mapping[str, Any]) -> bytes:
    """A node's JSON as bytes."""
    return _json(value).encode()


def claim_info(
    name: str, place: Place, at: int, state: ClaimState, data: Mapping[str, Any], fence: int
) -> ClaimInfo:
    """A claim as a fact, ``at`` its place in the queue. ZooKeeper does not say when its session would end."""
    ttl = number(data.get("ttl", 0.0)) or 0.0
    return claim_of(
        data.get("note"),
        damaged=not data,
        name=name,
        claim_id=claim_id(place.token),
        state=state,
        owner=data.get("owner"),
        fence=fence,
        position=at,
        kind=data.get("kind", "mutex"),
        weight=place.weight,
        capacity=place.capacity,
        ttl=data.get("ttl", 0.0),
        since=data.get("granted") or data.get("since", 0.0),
        evidence=unread(data, VERSION)
        or (ttl and f"its session is alive, as it is for up to {ttl:g} s after the death of its process")
        or "",
        layout=layout_in(data),
    )


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
