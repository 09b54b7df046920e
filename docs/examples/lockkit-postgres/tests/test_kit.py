"""The conformance kit on PostgreSQL."""

from harness import PostgresHarness

from lockkit.testing.kit import kit

test_postgres = kit(PostgresHarness)
