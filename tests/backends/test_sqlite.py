"""The conformance kit on the embedded store."""

from lockkit.testing.harnesses.sqlite import SqliteHarness
from lockkit.testing.kit import kit

test_sqlite = kit(SqliteHarness)
