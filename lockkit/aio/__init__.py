"""The asyncio face: the same names as in ``lockkit``, with ``await`` before what may wait.

async with lockkit.aio.connect() as client:
    async with client.lock("gpu:0").acquire(timeout=600) as lease:
        ...
"""

from __future__ import annotations

from lockkit.aio.client import AsyncClient, connect
from lockkit.aio.composites import AsyncAllOf, AsyncAnyOf
from lockkit.aio.lease import AsyncLease, AsyncLeaseCopy, CancelOnLoss, Loss, ReleaseRequested
from lockkit.aio.leases import AsyncLeases, AsyncPoolLeases
from lockkit.aio.locks import AsyncLock, AsyncRWLock
from lockkit.aio.pools import AsyncPool
from lockkit.aio.shortform import Acquiring

__all__ = [
    "Acquiring",
    "AsyncAllOf",
    "AsyncAnyOf",
    "AsyncClient",
    "AsyncLease",
    "AsyncLeaseCopy",
    "AsyncLeases",
    "AsyncLock",
    "AsyncPool",
    "AsyncPoolLeases",
    "AsyncRWLock",
    "CancelOnLoss",
    "Loss",
    "ReleaseRequested",
    "connect",
]
