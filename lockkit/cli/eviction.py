"""Who forced a claim out, and why: kept in the claim's note, for the one whose command was ended."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from lockkit.errors import LockkitError

if TYPE_CHECKING:
    from lockkit.client import Client
    from lockkit.lease import Lease

__all__ = ["mark", "said"]

_PATIENCE = 0.5
"""Seconds."""


def said(client: Client, lease: Lease) -> dict[str, str] | None:
    """``{"by", "reason"}`` of an eviction of this lease; None where it wasn't evicted, or nobody can tell any more.

    The last renewal may have been the one that was refused, and carried no note; the claim itself goes on blocking for a
    while, marked, so the store is asked once, and not for long: there is a command to be ended.
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
    """``{"by", "reason"}`` in a claim's note; None where there is no mark of an eviction."""
    found = note.get("evicted")
    if not isinstance(found, Mapping):
        return None
    return {"by": str(found.get("by") or "somebody"), "reason": str(found.get("reason") or "")}
