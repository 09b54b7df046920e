"""The mixes of :mod:`support.together`, played by tasks of one event loop."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from lockkit.aio import AsyncClient, AsyncLeases
from lockkit.testing.harness import Harness
from support.together import Ledger, Step, endings, nothing_left, patience, take, ttl_for

__all__ = ["play_tasks"]


class _Actor:
    """One task with its own clients, which makes step after step; a short timeout cancels a step."""

    def __init__(self, harness: Harness, ledger: Ledger, ttl: float) -> None:
        self._harness = harness
        self._ledger = ledger
        self._ttl = ttl
        self.at: Step | None = None
        self.client: AsyncClient | None = None

    async def run(self, steps: Sequence[Step]) -> None:
        for step in steps:
            self.at = step
            if self.client is None:
                self.client = AsyncClient(self._harness.client(request_timeout=5.0))
            client = self.client
            closer = asyncio.create_task(_close(client)) if step.end == "close" else None
            if closer is not None:
                self.client = None
            with suppress(*endings(step), TimeoutError):
                await self._make(client, step)
            if closer is not None:
                await closer
        self.at = None

    async def _make(self, client: AsyncClient, step: Step) -> None:
        async with asyncio.timeout(step.timeout or None):
            taken = await take(client, step if step.timeout == 0 else replace(step, timeout=None), self._ttl)
        if taken is None:
            return
        leases = list(taken) if isinstance(taken, AsyncLeases) else [taken]
        if step.end == "crash":
            with self._ledger.holds(leases):
                await asyncio.sleep(step.hold)
            await asyncio.to_thread(self._harness.crash, client._client)  # noqa: SLF001
            self.client = None
            return
        with suppress(ZeroDivisionError):
            async with taken:
                with self._ledger.holds(leases):
                    await asyncio.sleep(step.hold)
                    if step.end == "error":
                        raise ZeroDivisionError


async def _close(client: AsyncClient) -> None:
    await asyncio.sleep(0.01)
    await client.close()


def play_tasks(make: Callable[[Path], Harness], mix: Sequence[Sequence[Step]], *, limit: float = 60.0) -> int:
    """Let tasks take their steps together; check ends, overlaps, leftovers. Returns the grants.

    Args:
        make: Makes the store.
        mix: The steps of each task.
        limit: Seconds after which a task hangs.
    """
    with tempfile.TemporaryDirectory(prefix="lockkit-together-") as folder:
        harness = make(Path(folder))
        try:
            return asyncio.run(_play(harness, mix, limit))
        finally:
            harness.close()


async def _play(harness: Harness, mix: Sequence[Sequence[Step]], limit: float) -> int:
    crashes, ttl = ttl_for(harness, mix)
    ledger = Ledger()
    actors = [_Actor(harness, ledger, ttl) for _ in mix]
    tasks: list[asyncio.Task[Any]] = [
        asyncio.create_task(actor.run(steps)) for actor, steps in zip(actors, mix, strict=True)
    ]
    try:
        await asyncio.wait(tasks, timeout=limit)
        hung = [actor.at for actor, task in zip(actors, tasks, strict=True) if not task.done()]
        assert not hung, f"never finished: {hung}"
        for task in tasks:
            task.result()
        assert not ledger.overlaps, ledger.overlaps
        await asyncio.to_thread(nothing_left, harness, patience(crashes, ttl))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for actor in actors:
            if actor.client is not None:
                await actor.client.close()
    return ledger.grants
