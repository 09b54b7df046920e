"""The conformance kit on the embedded store, in a folder of one user's own; and for one kind of lock in one that a group shares."""

from lockkit.testing.kit import kit
from lockkit.testing.shapes import MUTEX
from support.harnesses.sqlite import SharedSqliteHarness, SqliteHarness

test_sqlite = kit(SqliteHarness)
test_sqlite_in_a_shared_folder = kit(SharedSqliteHarness, shapes=(MUTEX,))
