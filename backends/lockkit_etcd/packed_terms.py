"""The terms of a lock, packed once: the part of each claim's value that never changes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import NamedTuple

from lockkit.store.notes import note_text
from lockkit.store.owners import packed_owner
from lockkit.store.spi import NOTE_LIMIT, Claim, Terms
from lockkit_etcd.keys import Keys
from lockkit_etcd.rows import LAYOUT

__all__ = ["PackedTerms", "seconds"]


def seconds(length: float) -> int:
    """A length of time in etcd's whole seconds, rounded up."""
    return max(1, math.ceil(length - 1e-6))


class PackedTerms(NamedTuple):
    """Terms in the units of the store.

    Attributes:
        length: Seconds; the length of the lease of a claim that holds.
        guard: Seconds; the length of the guard's lease, which blocks for min_hold; 0 for no guard.
        exclusive: A holder holds alone.
    """

    terms: Terms
    keys: Keys
    length: int
    guard: int
    exclusive: bool
    tail: str

    @classmethod
    def of(cls, namespace: str, terms: Terms, client: str) -> PackedTerms:
        """Pack the terms of a client's lock."""
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
        longest = terms.ttl if terms.max_hold is None else min(terms.ttl, terms.max_hold)
        return cls(
            terms,
            Keys.of(namespace, terms.name),
            seconds(longest + terms.lock_delay),
            seconds(terms.min_hold) if terms.min_hold else 0,
            terms.weight == terms.capacity,
            json.dumps(said, separators=(",", ":"), ensure_ascii=False)[1:],
        )

    def value(self, claim: Claim, mark: str, state: str, since: float, term: int) -> bytes:
        """The value of a claim, on a lease of a term.

        Raises:
            ConfigError: The note is no JSON, or too long.
        """
        note = f'"note":{_note(claim.note)},' if claim.note else ""
        if not claim.wait and state == "WAITING":
            note = f'"try":true,{note}'
        return f'{{"v":{LAYOUT},"claim":"{mark}","state":"{state}","since":{since:.6f},"term":{term},{note}{self.tail}'.encode()


def _note(note: Mapping[str, object]) -> str:
    return note_text(note, NOTE_LIMIT)
