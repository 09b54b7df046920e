"""The cards of a host as a pool, under asyncio, on simulated cards."""

from __future__ import annotations

import asyncio
import os

import pytest

import lockkit
import lockkit.aio
from lockkit.errors import AcquireTimeout, ConfigError
from lockkit.facts import Owner
from lockkit.gpu.aio import AsyncGpuLeases, pool
from lockkit.gpu.quarantine import quarantine
from lockkit.gpu.simulated import SimulatedProvider

CARDS = [card.uuid for card in SimulatedProvider(4).snapshot().devices]


@pytest.fixture
def url(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCKKIT_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return f"memory://{os.urandom(8).hex()}"


def test_a_task_holds_a_card_and_shows_it_to_child_processes(url):
    async def main():
        async with lockkit.aio.connect(url) as client:
            cards = pool(client, simulate=2)
            async with cards.acquire(min_free="20GiB", timeout=5) as leases:
                assert isinstance(leases, AsyncGpuLeases)
                assert [device.uuid for device in leases.devices] == [CARDS[0]]
                with leases.visible():
                    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
                other = await cards.acquire(memory="8GiB", timeout=5)
                assert other.members == (CARDS[1],)
                with pytest.raises(AcquireTimeout):
                    await cards.acquire(timeout=0)
                await other.release()
            with pytest.raises(ConfigError, match="3 GPUs can never be had"):
                await cards.acquire(3)
            assert not [name for name in await client.names() if (await client.inspect(name)).claims]

    asyncio.run(main())


def test_no_task_gets_a_quarantined_card(url):
    with lockkit.connect(url) as client:
        quarantine(client, os.uname().nodename, CARDS[0], "it hums", Owner(host="box", user="ann"))

        async def main():
            async with lockkit.aio.connect(url) as aio, pool(aio, simulate=2).acquire(timeout=5) as leases:
                assert leases.members == (CARDS[1],)

        asyncio.run(main())


def test_a_task_that_waits_for_a_card_can_be_cancelled(url):
    async def main():
        async with lockkit.aio.connect(url) as client:
            cards, waits = pool(client, simulate=1), asyncio.Event()
            async with cards.acquire(timeout=5):
                task = asyncio.create_task(_held(cards, waits))
                await waits.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            async with cards.acquire(timeout=5) as leases:
                assert leases.members == (CARDS[0],)

    asyncio.run(main())


async def _held(cards, waits):
    async with cards.acquire(timeout=30, on_wait=lambda _: waits.set()):
        pass
