"""The conformance kit on compare-and-swap registers, which shows that such a store needs two calls."""

from lockkit.testing.kit import kit
from lockkit.testing.shapes import SEMAPHORE
from support.harnesses.register import RegisterHarness

test_register = kit(RegisterHarness, shapes=(SEMAPHORE,))  # its rule is that of SQLite, which meets all kinds
