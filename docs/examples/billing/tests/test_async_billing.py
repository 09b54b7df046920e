import asyncio

import pytest

import lockkit


def test_a_busy_lock(async_lockkit_client):
    async def main():
        elsewhere = async_lockkit_client.hold_elsewhere("invoice:7")
        with pytest.raises(lockkit.AcquireTimeout):
            await async_lockkit_client.lock("invoice:7").acquire(timeout=0.1)
        elsewhere.release()
        async with async_lockkit_client.lock("invoice:7").acquire(timeout=5) as lease:
            async_lockkit_client.clock.advance(3600)
            lease.ensure_held()

    asyncio.run(main())
