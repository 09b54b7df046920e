"""lockkit.aio on Redis, beside the lock of redis-py's own asyncio client."""

from __future__ import annotations

import asyncio
from pathlib import Path

from lockkit.testing.bench.asynchronous import AsyncContender, figures
from lockkit.testing.bench.figures import Figure

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
        return asyncio.run(_measured(folder, server.url(), quick=quick))


async def _measured(folder: Path, url: str, *, quick: bool) -> list[Figure]:
    from redis.asyncio import Redis

    client = Redis.from_url(url)

    async def both(name: str) -> None:
        async with client.lock(name, timeout=30):
            pass

    try:
        beside = {_PEER: AsyncContender(both)}
        return await figures("redis-asyncio", folder, url, _STORE, beside, quick=quick, to=_PEER)
    finally:
        await client.aclose()
