"""The conformance kit through the asyncio face, on the embedded store, which is called on threads."""

from lockkit.testing.kit import kit
from lockkit.testing.shapes import MUTEX
from support.harnesses.sqlite import SqliteHarness


class AsyncSqliteHarness(SqliteHarness):
    face = "asyncio"
    examples = (15, 20)


test_sqlite_through_asyncio = kit(AsyncSqliteHarness, shapes=(MUTEX,))
