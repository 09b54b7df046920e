"""Locks as the JSON document that ``lockkit status --json`` prints."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from lockkit.views import documents, making
from lockkit.views.looking import summary

if TYPE_CHECKING:
    from lockkit.sync.client import Client
    from lockkit.views.looking import Look

__all__ = ["status"]


def status(
    client: Client, found: Look, at: float | None = None, told: slice = slice(None)
) -> documents.Status:
    """The document of ``lockkit status`` for one look.

    ``told`` selects the waiters of each queue that are listed.
    """
    now = time.time() if at is None else at
    return making.made_of(
        documents.Status,
        found,
        store=client,
        read_at=now,
        locks=[making.lock(info, told) for info in found.shown],
        unread=making.unread(found.unread.items()),
        summary=summary(found, now),
        near=(found.traces and found.traces.near) or (),
    )
