"""The endpoints that show something: stores, health, locks, failures and GPUs."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from starlette.responses import Response

from lockkit.errors import ConfigError
from lockkit.observe.exposition import CONTENT_TYPE
from lockkit.server.answers import answer
from lockkit.server.documents import Health, Ping, ServedStore, Stores
from lockkit.server.health import failures as of_store
from lockkit.server.health import worst
from lockkit.server.problems import HttpProblem
from lockkit.values.names import check_name
from lockkit.views import documents, making
from lockkit.views.looking import Look, arranged
from lockkit.views.making import made_of
from lockkit.views.status import status
from lockkit.views.texts import lock_state

if TYPE_CHECKING:
    from lockkit.server.calls import Call
    from lockkit.server.stores import ServerStore

__all__ = ["failures", "gpus", "health", "livez", "lock", "locks", "metrics", "readyz", "stores"]

_AT_ONCE = 8
"""Stores whose health is checked at the same time."""


async def livez(_call: Call) -> Ping:
    """The event loop answers, whatever the stores do."""
    return Ping("ok")


async def readyz(call: Call) -> Ping:
    """At least one store answers, and does so within a second."""
    for asked in asyncio.as_completed([one.readiness.ready() for one in call.stores.all]):
        if await asked:
            return Ping("ok")
    raise HttpProblem(503, "not_ready", "no store answers", headers={"retry-after": "5"})


def health(call: Call) -> Response:
    """The health of all stores, with status 503 if it is unhealthy."""
    now = time.time()
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        each = list(threads.map(lambda one: one.health(), call.stores.all))
    verdict = worst(one.status for one in each)
    document = made_of(Health, status=verdict, read_at=now, stores=each)
    return answer(document, 503 if verdict == "unhealthy" else 200)


def metrics(call: Call) -> Response:
    """The metrics of all stores, in the text format of Prometheus."""
    return Response(call.stores.exporter.text(), media_type=CONTENT_TYPE)


def stores(call: Call) -> Stores:
    """The stores of this server, and who asks."""
    visitor = call.visitor
    return Stores(
        stores=[
            made_of(ServedStore, one, store=making.store(one.client), stale_since=one.watch.stale_since)
            for one in call.stores.all
        ],
        visitor=None if visitor is None or call.tokens is None else visitor.name,
        scope="view" if visitor is None else visitor.scope,
    )


def locks(call: Call) -> documents.Status:
    """A page of the locks."""
    query, store = call.query, call.store
    found, at = store.watch.look()
    chosen = [
        info
        for info in found.locks
        if (query.pattern is None or info.name == query.pattern or fnmatchcase(info.name, query.pattern))
        and (query.state is None or lock_state(info) == query.state)
    ]
    page = arranged(found._replace(locks=chosen), query.sort)
    if query.apart:
        page = page._replace(locks=sorted(page.locks, key=lambda info: info.name.startswith("@")))
    page = page._replace(start=query.offset, limit=query.limit)
    return _status(store, page, at, 0, query.waiters)


def lock(call: Call) -> documents.Status:
    """One lock, whether it is free or not."""
    query, store = call.query, call.store
    try:
        check_name(query.name)
    except ConfigError as error:
        raise HttpProblem(400, "bad_name", error.message, hint=error.hint) from None
    found, at = store.lock(query.name)
    return _status(store, found, at, query.offset, query.waiters)


def _status(store: ServerStore, found: Look, at: float, offset: int, waiters: int) -> documents.Status:
    return status(store.client, found, at, slice(offset, offset + waiters))


def failures(call: Call) -> documents.Failures:
    """The failed releases that the journal of this user on this host has of the store."""
    return documents.Failures(failures=of_store(call.store.client, resolved=call.query.all))


def gpus(call: Call) -> documents.GpuLs:
    """The GPUs of this host."""
    return call.store.gpus()
