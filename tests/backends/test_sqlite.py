"""The conformance kit on the embedded store in a private folder; for one kind of lock in a shared folder."""

from lockkit.testing.kit import kit
from lockkit.testing.machine import Machine
from lockkit.testing.shapes import MUTEX
from support.harnesses.sqlite import SharedSqliteHarness, SqliteHarness

test_sqlite = kit(SqliteHarness)
test_sqlite_in_a_shared_folder = kit(SharedSqliteHarness, shapes=(MUTEX,))


def test_s11_the_machine_allows_a_silent_holder_that_is_evicted_half_a_ttl_more(tmp_path):
    """A process-bound claim has no deadline until then, and its command can be ended in that time."""
    machine = type("OnSqlite", (Machine,), {"harness_class": SqliteHarness, "scratch": tmp_path})()
    machine.begin("mutex")
    try:
        machine.try_acquire(0, 0, False, "bound")
        machine.harness.advance(1.1 * SqliteHarness.ttl)
        machine.evict(0, False)

        machine.validity()
        (row,) = machine.seen.queues["mutex"].values()
        assert row.evicted
    finally:
        machine.teardown()
