"""The conformance kit on the embedded store."""

from lockkit.testing.kit import kit
from support.harnesses.sqlite import SqliteHarness

test_sqlite = kit(SqliteHarness)
