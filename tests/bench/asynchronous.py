"""Locks on an event loop beside those of asyncio clients: redis-py, or the first installed client of etcd.

The clients of etcd need a newer protobuf than python-etcd3, so an environment has these or that. Each of them
registers messages of the same names, so a process can use only one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from importlib import import_module
from multiprocessing.connection import Connection
from urllib.parse import urlsplit

from bench.contenders import installed
from bench.stores import served
from lockkit.aio import AsyncClient
from lockkit.testing.bench.asynchronous import Both, on_a_loop
from lockkit.testing.bench.figures import Figure
from lockkit.testing.bench.standstill import bare, standstills, worked
from lockkit.testing.bench.trial import Trial, connected
from lockkit.testing.bench.workers import Role, quiet, started
from support.servers.redis import RedisServer

__all__ = ["PEERS", "on_etcd", "on_redis"]

PEERS = {"aetcd": "aetcd", "etcd3aio": "etcd3aio"}
"""The asyncio clients of etcd: pip's name of each, and the module that it brings."""
_TTL = 30


def on_redis(trial: Trial) -> list[Figure]:
    """Everything that is measured on an event loop, on Redis, and a loop in an outage."""
    with served(trial, "redis") as (there, _):
        on_loop = replace(there, store="lockkit.aio, Redis")
        found = asyncio.run(_beside(on_loop, "redis.asyncio"))
    pause = 0.5 if trial.quick else 3.0
    with started(_outage, pause) as faults:
        return [*found, *asyncio.run(_in_outage(replace(on_loop, url=faults.recv()), faults, 5 * pause))]


def on_etcd(trial: Trial) -> list[Figure]:
    """Everything that is measured on an event loop, on etcd."""
    with served(trial, "etcd") as (there, _):
        return asyncio.run(_beside(replace(there, store="lockkit.aio, etcd"), *installed(PEERS)[:1]))


async def _beside(trial: Trial, *names: str) -> list[Figure]:
    async with AsyncExitStack() as stack:
        return await on_a_loop(trial, {name: await _opened(stack, name, trial.url) for name in names})


async def _opened(stack: AsyncExitStack, name: str, url: str) -> Both:
    """Take and release the lock of a library, which is used as its own documentation shows it first."""
    place, library = urlsplit(url), import_module(name)
    if name == "redis.asyncio":
        client = library.Redis.from_url(url)
        stack.push_async_callback(client.aclose)
        make = partial(client.lock, timeout=_TTL)
    else:
        aetcd = name == "aetcd"
        client = library.Client(place.hostname, place.port) if aetcd else library.Etcd3Client([place.netloc])
        await client.connect()
        stack.push_async_callback(client.close)
        make = partial(client.lock, ttl=_TTL)

    async def both(lock: str) -> None:
        async with make(lock.encode() if name == "aetcd" else lock):
            pass

    return both


def _outage(pause: float) -> Role:
    """A server that is stopped, goes on, is killed, and is started again, with a pause before each.

    A process of its own does that: while a program is started, no other thread of a process runs.
    """
    with RedisServer() as server:
        yield server.url()
        for change in (server.pause, server.resume, server.kill, server.start):
            time.sleep(pause)
            change()
        yield "over"
    yield "removed"


async def _in_outage(trial: Trial, faults: Connection, seconds: float) -> list[Figure]:
    """The loop's longest standstill while tasks use locks of that server."""
    async with AsyncClient(connected(trial.url, trial.folder)) as client:
        async with client.lock("before"):
            pass
        alone = await bare(seconds)
        faults.send(None)
        with quiet(logging.CRITICAL + 1):  # each release in vain would be told
            busy = await worked(client, asyncio.sleep(seconds))
    faults.recv()
    faults.send(None)
    faults.recv()
    return standstills(trial, alone, busy, ", the server stopped and killed")
