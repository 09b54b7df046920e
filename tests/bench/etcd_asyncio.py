"""lockkit.aio on etcd, beside the lock of an asyncio client of etcd.

The clients need a newer protobuf than python-etcd3, and each registers messages of the same names, so an environment can have them only
without python-etcd3, and a process can use only one of them: the first that is installed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from urllib.parse import urlsplit

from bench.contenders import peers
from lockkit.testing.bench.asynchronous import AsyncContender, figures
from lockkit.testing.bench.figures import Figure

__all__ = ["PEERS", "etcd_asyncio"]

PEERS = {"aetcd": "aetcd", "etcd3aio": "etcd3aio"}
"""pip's name of each library, and the module that it brings."""
_STORE = "lockkit.aio, etcd"
_TTL = 30


def etcd_asyncio(folder: Path, _url: str, _store: str, *, quick: bool) -> list[Figure]:
    """Everything that is measured on an event loop, on etcd.

    Raises:
        ServerMissing: There is no server to start.
    """
    from support.servers.etcd import EtcdServer

    with EtcdServer() as server:
        return asyncio.run(_measured(folder, server.url(), quick=quick))


async def _measured(folder: Path, url: str, *, quick: bool) -> list[Figure]:
    for name in peers(PEERS)[0][:1]:
        async with _opened(name, url) as both:
            beside = {name: AsyncContender(both)}
            return await figures("etcd-asyncio", folder, url, _STORE, beside, quick=quick, to=name)
    return await figures("etcd-asyncio", folder, url, _STORE, {}, quick=quick)


@asynccontextmanager
async def _opened(name: str, url: str) -> AsyncIterator[Callable[[str], Awaitable[None]]]:
    """Take and release the lock of a library, which is used as its own documentation shows it first."""
    place, library = urlsplit(url), import_module(name)
    client = (
        library.Client(host=place.hostname, port=place.port)
        if name == "aetcd"
        else library.Etcd3Client([place.netloc])
    )
    await client.connect()

    async def both(lock: str) -> None:
        async with client.lock(lock.encode() if name == "aetcd" else lock, ttl=_TTL):
            pass

    try:
        yield both
    finally:
        await client.close()
