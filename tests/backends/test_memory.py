"""The conformance kit on the memory store."""

from lockkit.testing.kit import kit
from support.harnesses.memory import MemoryHarness

test_memory = kit(MemoryHarness)
