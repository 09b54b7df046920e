"""How `lockkit bench` tells what blocks an event loop."""

import asyncio
import time

from lockkit.testing.bench.standstill import BLOCKED, Callbacks


def _compute(milliseconds: float) -> None:
    end = time.thread_time() + milliseconds / 1e3
    while time.thread_time() < end:
        pass


def test_a_callback_that_computes_for_long_is_noted():
    async def block() -> None:
        _compute(2 * BLOCKED)

    with Callbacks() as callbacks:
        asyncio.run(block())
    assert callbacks.longest >= 2 * BLOCKED


def test_turns_between_short_steps_are_not_added_up():
    async def share() -> None:
        for _ in range(20):
            _compute(0.5)
            await asyncio.sleep(0)

    with Callbacks() as callbacks:
        asyncio.run(share())
    assert callbacks.longest < 2 * BLOCKED  # ten milliseconds in all


def test_the_loops_are_as_before_afterwards():
    before = asyncio.Handle._run
    with Callbacks():
        assert asyncio.Handle._run is not before
    assert asyncio.Handle._run is before
