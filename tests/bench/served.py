"""The requests and the time that answers of ``lockkit serve`` cost with 1,000 locks, and with 1,000 waiters in one queue.

Run as ``python -m bench.served [STORE...]`` in ``tests``. Another process holds and waits. Each figure is the least of the rounds, so that a beat of that
process's heart, or other load, does not count.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import lockkit
import lockkit.aio
from lockkit.server import make_app

if TYPE_CHECKING:
    from starlette.types import Message

    from lockkit.server.app import Application

__all__ = ["main"]

LOCKS = WAITERS = 1000
ROUNDS = 5
_AT_ONCE = 40
"""Waiters that come at the same time, so that the store does not take longer than a request may."""
PAGES = {
    "a page of 50 locks": "/api/locks?limit=50",
    "a page of 50 locks, later": "/api/locks?limit=50&offset=900",
    "one lock, 100 waiters": "/api/lock?name=busy",
    "health": "/health",
}


def say(text: str) -> None:
    """Print a row at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def fill(url: str) -> None:
    """Hold 1,000 locks, and wait 1,000 times for one more, until this process is ended."""

    async def waits() -> None:
        async with lockkit.aio.connect(url, request_timeout=30) as client:
            tasks: list[asyncio.Task[object]] = []
            while len(tasks) < WAITERS:
                tasks += [
                    asyncio.create_task(client.lock("busy", ttl=3600).acquire(timeout=None))
                    for _ in range(_AT_ONCE)
                ]
                while len((await client.inspect("busy")).waiters) < len(tasks):  # noqa: ASYNC110 (nothing announces it)
                    await asyncio.sleep(0.05)
            say("ready")
            await asyncio.wait(tasks)

    with lockkit.connect(url, request_timeout=30) as client:
        held = [client.lock("busy", ttl=3600).acquire()]
        held += [client.lock(f"job/{number}", ttl=3600).acquire() for number in range(LOCKS - 1)]
        asyncio.run(waits())


@contextmanager
def store(kind: str) -> Iterator[tuple[str, Callable[[], int]]]:
    """The URL of a private store of a kind, and its count of requests."""
    if kind == "redis":
        from support.servers.redis import RedisServer

        with RedisServer() as redis:
            yield redis.url(), redis.requests
    elif kind == "etcd":
        from support.servers.etcd import EtcdServer

        with EtcdServer() as etcd:
            yield etcd.url(), etcd.requests
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:{folder}/locks.db", lambda: 0


@contextmanager
def filled(url: str) -> Iterator[None]:
    """The store with 1,000 locks and waiters of another process."""
    command = [sys.executable, "-c", f"from bench.served import fill; fill({url!r})"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield
        finally:
            process.kill()


async def ask(application: Application, path: str) -> bytes:
    """The body of the answer to one request, without HTTP."""
    path, _, query = path.partition("?")
    body = bytearray()

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        body.extend(message.get("body", b""))

    await application(
        {
            "type": "http",
            "method": "GET",
            "path": path,
            "query_string": query.encode(),
            "headers": [(b"host", b"localhost")],
            "scheme": "http",
        },
        receive,
        send,
    )
    return bytes(body)


async def measured(url: str, requests: Callable[[], int]) -> None:
    with lockkit.connect(url, request_timeout=30) as client:
        application = make_app([client])
        served = application.stores.all[0]
        for what, path in PAGES.items():
            rows = []
            for _ in range(ROUNDS):
                served.forget()
                counted, begun, cpu = requests(), time.monotonic(), time.process_time()
                answer = await ask(application, path)
                ended, used = time.monotonic() - begun, time.process_time() - cpu
                rows.append((ended * 1e3, used * 1e3, requests() - counted, len(answer)))
            show(what, rows)
        rows = []
        for _ in range(ROUNDS):
            served.forget()
            counted, begun, cpu = requests(), time.monotonic(), time.process_time()
            served.watch.look()
            ended, used = time.monotonic() - begun, time.process_time() - cpu
            rows.append((ended * 1e3, used * 1e3, requests() - counted, 0))
        show("a look for /api/events", rows)
        application.close()


def show(what: str, rows: list[tuple[float, float, int, int]]) -> None:
    """Print the least of some rounds."""
    wall, cpu, requests, size = (min(column) for column in zip(*rows, strict=True))
    say(f"{what:28} {wall:8.1f} ms {cpu:8.1f} ms CPU {requests:6} requests {size / 1024:8.1f} KiB")


def main(kinds: list[str]) -> None:
    """Measure on these kinds of stores."""
    for kind in kinds or ["sqlite", "redis", "etcd"]:
        say(kind)
        with store(kind) as (url, requests), filled(url):
            asyncio.run(measured(url, requests))


if __name__ == "__main__":
    main(sys.argv[1:])
