"""The conformance kit through the asyncio face, on the memory store, which is called on the event loop."""

from lockkit.testing.kit import kit
from lockkit.testing.shapes import SEMAPHORE
from support.harnesses.memory import MemoryHarness


class AsyncMemoryHarness(MemoryHarness):
    face = "asyncio"
    examples = (15, 20)


test_memory_through_asyncio = kit(AsyncMemoryHarness, shapes=(SEMAPHORE,))
