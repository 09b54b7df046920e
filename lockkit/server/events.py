"""The stream of changes (server-sent events)."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator

from sse_starlette.sse import EventSourceResponse

from lockkit.server.calls import Call
from lockkit.server.documents import Change
from lockkit.server.problems import HttpProblem
from lockkit.server.watching import Seen, StoreWatch, TooManyViewers
from lockkit.views.documents import plain
from lockkit.views.looking import summary
from lockkit.views.making import made_of

__all__ = ["change", "events"]

_ALIVE = 10
"""Seconds until a quiet stream sends a sign of life, and checks whether the token is still valid."""
_SEND = 20.0
"""Seconds for which a reader may not read."""


async def events(call: Call) -> EventSourceResponse:
    """The changes of the locks, as they are seen: first the state, then each change."""
    watch = call.store.watch
    if watch.full:
        raise HttpProblem(
            503, "too_many_viewers", "too many viewers watch this store", headers={"retry-after": "30"}
        )
    after = int(call.last_event) if call.last_event.isdecimal() and len(call.last_event) < 20 else None
    return EventSourceResponse(
        _stream(call, watch, after),
        ping=_ALIVE,
        send_timeout=_SEND,
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


async def _stream(call: Call, watch: StoreWatch, after: int | None) -> AsyncIterator[dict[str, str | int]]:
    try:
        with watch.viewing() as bell:
            while not watch.closed and call.still():
                seen = watch.since(after)
                if seen is not None:
                    after = seen.number
                    yield {
                        "event": "change",
                        "id": str(seen.number),
                        "retry": 2000,
                        "data": json.dumps(plain(change(seen))),
                    }
                await bell.wait(_ALIVE)
    except TooManyViewers:
        return


def change(seen: Seen) -> Change:
    """The document of a change."""
    return made_of(
        Change,
        seen,
        summary=None if seen.look is None else summary(seen.look, time.time()),
        read_at=seen.at,
        stale=seen.error is not None,
        stale_since=None if seen.error is None else seen.at,
        error=None if seen.error is None else seen.error.message,
    )
