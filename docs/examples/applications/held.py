"""Locks in asyncio: waits and releases on threads, so that the event loop goes on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager

import lockkit

WAITS = ThreadPoolExecutor(
    32, thread_name_prefix="wait-for-lock"
)  # for nothing else: a release must not stand behind a wait


@asynccontextmanager
async def held(lock: lockkit.Lock, *, seconds: float) -> AsyncIterator[lockkit.Lease]:
    """Hold a lock in the body of an `async with`, and wait for it for so many seconds at most."""
    taking = WAITS.submit(_take, lock, seconds)
    try:
        lease = await asyncio.wrap_future(taking)
    except asyncio.CancelledError:
        taking.add_done_callback(_give_back)  # the thread cannot be stopped: give back what it may still get
        raise
    try:
        yield lease
        lease.ensure_held()  # raises LeaseLost: the lock did not protect the body all the time
    finally:
        await asyncio.shield(asyncio.to_thread(lease.release))


def _take(lock: lockkit.Lock, seconds: float) -> lockkit.Lease:
    return lock.acquire(timeout=seconds).detach()  # another thread releases it, and this one waits for others


def _give_back(taken: Future[lockkit.Lease]) -> None:
    if not taken.cancelled() and taken.exception() is None:
        threading.Thread(target=taken.result().release).start()  # not here: this may be the event loop
