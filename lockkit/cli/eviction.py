"""The record of an eviction: who evicted a claim and why, kept in the claim's note for the evicted user."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from lockkit.errors import LockkitError

if TYPE_CHECKING:
    from lockkit.sync.client import Client
    from lockkit.sync.lease import Lease

__all__ = ["mark", "said"]

_PATIENCE = 0.5
"""Seconds to wait for the answer of the store."""


def said(client: Client, lease: Lease) -> dict[str, str] | None:
    """The user who evicted this lease, and the reason (``by``, ``reason``); None if neither is known.

    The answer to the refused renewal may lack the note, but the evicted claim stays in the store for a
    while, with its mark. The store is asked only once and briefly: the command must be ended in time.
    """
    found = mark(lease.requests)
    if found is not None or lease.lost_because != "evicted":
        return found
    answer: list[dict[str, str]] = []
    asked = threading.Thread(target=_ask, args=(client, lease, answer), daemon=True)
    asked.start()
    asked.join(_PATIENCE)
    return answer[0] if answer else None


def _ask(client: Client, lease: Lease, answer: list[dict[str, str]]) -> None:
    try:
        claims = client.inspect(lease.name).claims
    except LockkitError:
        return
    answer += [found for one in claims if one.claim_id == lease.claim_id and (found := mark(one.note))]


def mark(note: Mapping[str, object]) -> dict[str, str] | None:
    """The mark of an eviction in a claim's note (``by`` and ``reason``); None if there is none."""
    found = note.get("evicted")
    if not isinstance(found, Mapping):
        return None
    return {"by": str(found.get("by") or "somebody"), "reason": str(found.get("reason") or "")}
