"""The conformance kit on the memory store."""

from lockkit.testing.harnesses.memory import MemoryHarness
from lockkit.testing.kit import kit

test_memory = kit(MemoryHarness)
