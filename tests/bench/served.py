"""The cost of answers of ``lockkit serve`` with 1,000 locks, and with 1,000 waiters in one queue.

Another process holds and waits. Each figure is the least of the rounds, so that its heartbeat does not count.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import lockkit
from bench.stores import served
from lockkit.aio import AsyncClient
from lockkit.server import make_app
from lockkit.testing.bench.figures import Figure
from lockkit.testing.bench.trial import Trial
from lockkit.testing.bench.workers import Role, started

if TYPE_CHECKING:
    from starlette.types import Message

    from lockkit.server.app import Application

__all__ = ["measured"]

_AT_ONCE = 40
"""Waiters that come at the same time, so that the store does not take longer than a request may."""
_ASKED = {
    "a page of 50 locks": "/api/locks?limit=50",
    "a page of 50 locks, later": "/api/locks?limit=50&offset={}",
    "one lock, 100 waiters": "/api/lock?name=busy",
    "health": "/health",
    "a look for /api/events": "",
}
"""By what is asked: the path, if there is one."""


def measured(kind: str, trial: Trial) -> list[Figure]:
    """The answers of the application on a private store of a kind, without HTTP."""
    here = replace(trial, url=f"sqlite:{trial.folder}/served.db", store="lockkit, SQLite")
    count, rounds = (200, 2) if trial.quick else (1000, 5)
    figures = []
    with (
        nullcontext((here, None)) if kind == "sqlite" else served(trial, kind) as (there, _),
        started(_fill, there.url, count) as others,
        lockkit.connect(there.url, request_timeout=30) as client,
        asyncio.Runner() as loop,
    ):
        others.recv()
        others.send(None)
        application = make_app([client])
        store, sent = application.stores.all[0], there.requests
        for what, path in _ASKED.items():
            rows = []
            for _ in range(rounds):
                store.forget()
                counted, began, used = sent(), time.monotonic(), time.process_time()
                body = (
                    loop.run(_ask(application, path.format(count * 9 // 10))) if path else store.watch.look()
                )
                cost = time.monotonic() - began, time.process_time() - used
                rows.append((*cost, sent() - counted, len(body) if path else 0))
            wall, cpu, requests, size = (min(column) for column in zip(*rows, strict=True))
            figures += [
                there.figure(what, wall * 1e3, "ms"),
                there.figure(f"{what}: CPU", cpu * 1e3, "ms"),
                there.figure(f"{what}: requests", requests, "calls"),
                there.figure(f"{what}: size", size / 1024, "KiB"),
            ]
        application.close()
    return figures


async def _ask(application: Application, path: str) -> bytearray:
    """The answer to one request."""
    path, _, query = path.partition("?")
    scope = {"type": "http", "method": "GET", "path": path, "query_string": query.encode(), "scheme": "http"}
    body = bytearray()

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        body.extend(message.get("body", b""))

    await application({**scope, "headers": [(b"host", b"localhost")]}, receive, send)
    return body


def _fill(url: str, count: int) -> Role:
    """Hold some locks, and wait as often for one of them."""
    names = ["busy", *(f"job/{number}" for number in range(1, count))]
    with lockkit.connect(url, request_timeout=30) as client, asyncio.Runner() as loop:
        held = [client.lock(name, ttl=3600).acquire() for name in names]
        waiting = loop.run(_queued(url, count))
        yield len(held)
        loop.run(asyncio.wait(waiting))


async def _queued(url: str, count: int) -> list[asyncio.Task[object]]:
    """Tasks that wait."""
    client = AsyncClient(lockkit.connect(url, request_timeout=30))
    tasks: list[asyncio.Task[object]] = []
    while len(tasks) < count:
        tasks += [
            asyncio.create_task(client.lock("busy", ttl=3600).acquire(timeout=None)) for _ in range(_AT_ONCE)
        ]
        while len((await client.inspect("busy")).waiters) < len(tasks):  # noqa: ASYNC110 (no event)
            await asyncio.sleep(0.05)
    return tasks
