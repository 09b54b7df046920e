"""lockkit.aio on Redis, beside the lock of redis-py's own asyncio client."""

from __future__ import annotations

import asyncio
import logging
import time
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from lockkit.aio import AsyncClient
from lockkit.testing.bench.asynchronous import AsyncContender, figures
from lockkit.testing.bench.client import connected
from lockkit.testing.bench.figures import Figure
from lockkit.testing.bench.standstill import bare, standstills, worked

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

__all__ = ["redis_asyncio"]

_STORE = "lockkit.aio, Redis"
_PEER = "redis.asyncio"


def redis_asyncio(folder: Path, _url: str, _store: str, *, quick: bool) -> list[Figure]:
    """Everything that is measured on an event loop, on Redis.

    Raises:
        ServerMissing: There is no server to start.
    """
    from support.servers.redis import RedisServer

    with RedisServer() as server:
        found = asyncio.run(_measured(folder, server.url(), quick=quick))
    return [*found, *_outage(folder, quick=quick)]


async def _measured(folder: Path, url: str, *, quick: bool) -> list[Figure]:
    from redis.asyncio import Redis

    client = Redis.from_url(url)

    async def both(name: str) -> None:
        async with client.lock(name, timeout=30):
            pass

    try:
        beside = {_PEER: AsyncContender(both)}
        return await figures("redis-asyncio", folder, url, _STORE, beside, quick=quick, to=_PEER, at_most=0.9)
    finally:
        await client.aclose()


def _outage(folder: Path, *, quick: bool) -> list[Figure]:
    """The loop's longest standstill while tasks use locks of a server that is stopped, goes on, is killed, and is started again."""
    pause = 0.5 if quick else 3.0
    spawn = get_context("spawn")
    here, there = spawn.Pipe()
    faults = spawn.Process(target=_unhappy_server, args=(there, pause), daemon=True)
    faults.start()
    try:
        return asyncio.run(_in_outage(folder, here, pause))
    finally:
        here.close()  # the server is stopped then
        faults.join()


def _unhappy_server(orders: Connection, pause: float) -> None:
    """A server and its faults, in a process of their own: to start a program takes milliseconds, in which no other thread of a process runs."""
    from support.servers.redis import RedisServer

    with RedisServer() as server:
        orders.send(server.url())
        try:
            orders.recv()
            for change in (server.pause, server.resume, server.kill, server.start):
                time.sleep(pause)
                change()
            orders.recv()
        except EOFError:
            return


async def _in_outage(folder: Path, faults: Connection, pause: float) -> list[Figure]:
    log = logging.getLogger("lockkit")
    before = log.level
    async with AsyncClient(connected(faults.recv(), folder)) as client:
        async with client.lock("before"):
            pass
        alone = await bare(5 * pause)
        log.setLevel(logging.CRITICAL + 1)  # each release in vain would be told
        faults.send("begin")
        try:
            busy = await worked(client, asyncio.sleep(5 * pause))
        finally:
            log.setLevel(before)
    return standstills("redis-asyncio", _STORE, alone, busy, ", the server stopped and killed")
