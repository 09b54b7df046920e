"""The cards of a host as a pool, under asyncio, on simulated cards."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import lockkit
import lockkit.aio
from lockkit.errors import AcquireTimeout, ConfigError
from lockkit.facts import Owner
from lockkit.gpu.aio import AsyncGpuLeases, pool
from lockkit.gpu.host_pools import simulated
from lockkit.gpu.quarantine import quarantine
from lockkit.gpu.requests import HostCards
from lockkit.gpu.simulated import SimulatedProvider

CARDS = [card.uuid for card in SimulatedProvider(4).snapshot().devices]
SECONDS = 10.0
"""A bound on the slowness of the machine."""


@pytest.fixture
def url(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCKKIT_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return f"memory://{os.urandom(8).hex()}"


def test_a_task_holds_a_card_and_shows_it_to_child_processes(url):
    async def main():
        async with lockkit.aio.connect(url) as client:
            cards = pool(client, simulate=2)
            async with cards.acquire(min_free="20GiB", timeout=30) as leases:
                assert isinstance(leases, AsyncGpuLeases)
                assert [device.uuid for device in leases.devices] == [CARDS[0]]
                with leases.visible():
                    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
                other = await cards.acquire(memory="8GiB", timeout=30)
                assert other.members == (CARDS[1],)
                with pytest.raises(AcquireTimeout, match=r"^1 GPU cannot be had now; GPU 0: held by "):
                    await cards.acquire(timeout=0)
                await other.release()
            with pytest.raises(ConfigError, match="3 GPUs can never be had"):
                await cards.acquire(3)
            assert not [name for name in await client.names() if (await client.inspect(name)).claims]

    asyncio.run(main())


def test_no_task_gets_a_quarantined_card(url):
    with lockkit.connect(url) as client:
        host = simulated(os.uname().nodename)
        quarantine(client, host, CARDS[0], "it hums", Owner(host="box", user="ann"))

        async def main():
            async with lockkit.aio.connect(url) as aio, pool(aio, simulate=2).acquire(timeout=30) as leases:
                assert leases.members == (CARDS[1],)
                told = r"timed out after [\d.]+ s waiting for 1 GPU; GPU 0: quarantined by ann@box: it hums"
                with pytest.raises(AcquireTimeout, match=f"^{told}"):
                    await pool(aio, simulate=1).acquire(timeout=1.5)

        asyncio.run(main())


def test_a_task_that_waits_for_a_card_can_be_cancelled(url):
    async def main():
        async with lockkit.aio.connect(url) as client:
            cards, waits = pool(client, simulate=1), asyncio.Event()
            async with cards.acquire(timeout=30):
                task = asyncio.create_task(_held(cards, waits))
                await waits.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            async with cards.acquire(timeout=30) as leases:
                assert leases.members == (CARDS[0],)

    asyncio.run(main())


def test_cards_are_had_although_every_thread_of_the_loops_executor_is_busy(url):
    async def main(free):
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        loop.run_in_executor(None, free.wait)
        async with (
            lockkit.aio.connect(url) as client,
            asyncio.timeout(SECONDS),
            pool(client, simulate=1).acquire() as leases,
        ):
            assert leases.members == (CARDS[0],)

    asyncio.run(_ended_by(main))


def test_requests_that_keep_every_thread_hold_up_no_release_and_no_deadline(url, tmp_path, monkeypatch):
    async def main(free):
        asked = threading.Semaphore(0)

        def hangs(_self):
            asked.release()
            free.wait()
            return SimulatedProvider(1).snapshot()

        monkeypatch.setattr(HostCards, "look", hangs)
        async with lockkit.aio.connect(f"sqlite:{tmp_path}/locks.db") as client:
            lease = await client.lock("x").acquire()
            cards = pool(client, simulate=1)
            others = [asyncio.create_task(_taken(cards)) for _ in range(4)]
            for _ in others:
                await asyncio.to_thread(asked.acquire, timeout=SECONDS)
            with pytest.raises(AcquireTimeout, match="while the driver of the GPUs and the store were asked"):
                async with asyncio.timeout(SECONDS):
                    await cards.acquire(timeout=0.2)
            async with asyncio.timeout(SECONDS):
                assert (await lease.release()).outcome == "RELEASED"
            free.set()
            await asyncio.gather(*others)

    asyncio.run(_ended_by(main))


async def _ended_by(main):
    """Give a test an event, and set it at the end: a closed loop waits for its executor's threads."""
    free = threading.Event()
    try:
        await main(free)
    finally:
        free.set()


async def _taken(cards):
    async with cards.acquire():
        pass


async def _held(cards, waits):
    async with cards.acquire(timeout=30, on_wait=lambda _: waits.set()):
        pass
