"""A FastAPI application whose requests hold the lock of an account, by a dependency."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException

import lockkit
import lockkit.aio

client = lockkit.aio.connect()


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with client:  # closed when the server stops
        yield


app = FastAPI(lifespan=lifespan)


async def account_lock(account: str) -> AsyncIterator[lockkit.aio.AsyncLease]:
    try:
        lease = await client.lock(f"account:{account}").acquire(timeout=5)
    except lockkit.AcquireTimeout as busy:
        raise HTTPException(503, "busy, try again") from busy
    async with lease:
        yield lease


@app.get("/{account}")
async def charge(account: str, lease: Annotated[lockkit.aio.AsyncLease, Depends(account_lock)]) -> str:
    await asyncio.sleep(0.2)  # the work
    lease.ensure_held()
    return f"{account} {lease.fence} {os.getpid()}"
