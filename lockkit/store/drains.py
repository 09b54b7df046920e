"""The mark of a drained namespace: its stored JSON text, the fact, and the refusal of an acquire."""

from __future__ import annotations

import json

from lockkit.errors import Drained
from lockkit.facts import Drain
from lockkit.lib.noted import moment
from lockkit.lib.printable import printable
from lockkit.store.notes import too_long
from lockkit.store.owners import packed_owner
from lockkit.store.spi import NOTE_LIMIT, Refused
from lockkit.store.untrusted import object_in, owner_of

__all__ = ["drain_of", "mark_of", "partly", "refused", "told"]


def mark_of(drain: Drain) -> str:
    """The mark as a store keeps it. ASCII, so that any store can keep and compare it.

    Raises:
        ConfigError: The mark has over :data:`~lockkit.store.spi.NOTE_LIMIT` bytes: the reason is too long.
    """
    value = {
        "v": 1,
        "reason": drain.reason,
        "owner": packed_owner(drain.owner),
        "since": round(drain.since, 3),
    }
    text = json.dumps(value, separators=(",", ":"))
    if len(text) > NOTE_LIMIT:
        raise too_long("mark", len(text), NOTE_LIMIT)
    return text


def drain_of(mark: str | bytes, namespace: str) -> Drain:
    """The fact that a mark states. An unreadable mark drains the namespace, too, for no known reason."""
    stored = object_in(mark)
    if stored is None:
        return Drain(namespace)
    return Drain(
        namespace,
        str(stored.get("reason") or ""),
        owner_of(stored.get("owner")),
        moment(stored.get("since")) or 0.0,
        stored.get("partial") is True,
    )


def partly(mark: str) -> str:
    """The mark, changed to say that only a part of the store has it. An unreadable one stays as it is."""
    stored = object_in(mark)
    return mark if stored is None else json.dumps({**stored, "partial": True}, separators=(",", ":"))


def told(drain: Drain) -> str:
    """The mark in words: ``namespace 'prod' is drained by ann@box pid 4711 (lockkit) (reason: upgrade)``."""
    reason = f" (reason: {printable(drain.reason)})" if drain.reason else ""
    return f"namespace {drain.namespace!r} is drained by {drain.owner}{reason}"


def refused(mark: str | bytes, namespace: str) -> Refused:
    """The refusal of an acquire in a drained namespace."""
    drain = drain_of(mark, namespace)
    return Refused(Drained(f"{told(drain)}; new locks are refused", drain=drain), retry=False)
