"""The same as an asynchronous application."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

import lockkit
import lockkit.aio

client = lockkit.aio.connect()


async def application(
    scope: dict[str, str], _receive: object, send: Callable[[dict[str, object]], Awaitable[None]]
) -> None:
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    account = scope["path"].strip("/")
    try:
        async with client.lock(f"account:{account}").acquire(timeout=5) as lease:
            status, body = 200, await charge(account, lease.fence)
    except lockkit.AcquireTimeout:
        status, body = 503, "busy, try again"
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": body.encode()})


async def charge(account: str, fence: int) -> str:
    await asyncio.sleep(0.2)  # the work
    return f"{account} {fence} {os.getpid()}"
