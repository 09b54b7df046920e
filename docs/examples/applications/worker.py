"""A worker that runs until it is stopped, and holds a lock while it does a piece of work."""

from __future__ import annotations

import asyncio
import signal
import sys

import lockkit
import lockkit.aio


async def work(client: lockkit.aio.AsyncClient, number: int) -> None:
    while True:
        async with client.lock("report").acquire() as lease, lease.cancel_on_loss():
            print(f"{number} has it, with fence {lease.fence}", flush=True)
            await asyncio.sleep(0.1)  # the work; it is cancelled if the lock is lost
            lease.ensure_held()  # before what cannot be undone


async def main(url: str | None = None) -> None:
    async with lockkit.aio.connect(url) as client:
        workers = [asyncio.create_task(work(client, number)) for number in range(3)]
        stop = asyncio.Event()
        for ending in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(ending, stop.set)
        await stop.wait()
        for worker in workers:  # each releases its lock, or leaves the queue
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
