"""lockkit.aio on Redis, beside the lock of redis-py's own asyncio client."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from lockkit.aio import AsyncClient
from lockkit.testing.bench.asynchronous import AsyncContender, figures
from lockkit.testing.bench.client import connected
from lockkit.testing.bench.figures import Figure
from lockkit.testing.bench.standstill import bare, standstills, worked

if TYPE_CHECKING:
    from support.servers.redis import RedisServer

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
        return [*found, *asyncio.run(_outage(folder, server, quick=quick))]


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


async def _outage(folder: Path, server: RedisServer, *, quick: bool) -> list[Figure]:
    """The loop's longest standstill while tasks use locks of a server that is stopped, goes on, is killed, and is started again."""
    pause = 0.5 if quick else 3.0
    log = logging.getLogger("lockkit")
    before = log.level

    async def unhappy() -> None:
        for change in (server.pause, server.resume, server.kill, server.start):
            await asyncio.sleep(pause)
            await asyncio.to_thread(change)
        await asyncio.sleep(pause)

    async with AsyncClient(connected(server.url(), folder)) as client:
        async with client.lock("before"):
            pass
        alone = await bare(5 * pause)
        log.setLevel(logging.CRITICAL + 1)  # each release in vain would be told
        try:
            busy = await worked(client, unhappy())
        finally:
            log.setLevel(before)
    return standstills("redis-asyncio", _STORE, alone, busy, ", the server stopped and killed")
