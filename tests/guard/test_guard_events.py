"""Guards report registrations, writes and refusals; an audit finds a resource that does not compare."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest

import lockkit
from lockkit import guard
from lockkit.errors import StaleFence
from lockkit.guard.gate import FenceGate
from lockkit.guard.on_file import FileGate, PlainFile
from lockkit.hooks import hookimpl
from lockkit.observe.audit import audit
from lockkit.observe.history import read_history


class Recording:
    """A plugin that keeps the events of guards."""

    def __init__(self):
        self.events = []

    @hookimpl
    def lockkit_event(self, event):
        if event.kind.startswith("guard_"):
            self.events.append(event)


@pytest.fixture
def plugin():
    return Recording()


@pytest.fixture
def client(plugin, tmp_path, monkeypatch):
    monkeypatch.setenv("LOCKKIT_STATE_DIR", str(tmp_path / "state"))
    with lockkit.connect("sqlite:", journal=True, plugins=[plugin]) as made:
        yield made


def told(client, plugin):
    client.driver().dispatcher.flush(10.0)
    return [(event.kind.removeprefix("guard_"), event.fence, event.name) for event in plugin.events]


class Paused:
    """A lease in the eyes of a holder that was paused after it had looked whether it is valid."""

    def __init__(self, lease):
        self._lease = lease
        self.name, self.fence, self.exclusive = lease.name, lease.fence, lease.exclusive

    def ensure_held(self):
        """Do nothing."""

    def tell_guard(self, *told):
        self._lease.tell_guard(*told)


def test_openings_writes_and_refusals_are_told_with_fence_claim_and_resource(client, plugin, tmp_path):
    gate = guard.file(tmp_path / "report")
    with client.lock("a").acquire() as lease:
        old = gate.open(Paused(lease))
        old.write(b"one")
    with client.lock("a").acquire() as newer:
        gate.open(newer)
        with pytest.raises(StaleFence):
            old.write(b"late")
        with pytest.raises(StaleFence):
            old.read()
        with pytest.raises(StaleFence):
            gate.open(Paused(lease))
    first, second = lease.fence, newer.fence
    assert told(client, plugin) == [
        ("opened", first, "a"),
        ("written", first, "a"),
        ("opened", second, "a"),
        *[("refused", first, "a")] * 3,
    ]
    assert {event.data["resource"] for event in plugin.events} == {gate.where}
    assert plugin.events[0].claim_id == lease.claim_id
    assert all(event.duration >= 0.0 for event in plugin.events[:3])
    assert plugin.events[-1].data["stored"] == second


def test_a_row_tells_what_was_committed_and_nothing_that_was_rolled_back(client, plugin, tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "app.db")) as db:
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, value INTEGER, fence BIGINT)")
        db.execute("INSERT INTO t (id, value) VALUES (1, 0)")
        db.commit()
        gate = guard.sql(db, "t", key={"id": 1})
        with client.lock("a").acquire() as lease, gate.open(lease) as row:
            row.read()
            row.write({"value": 1})
            with row.transaction():
                row.write({"value": 2})
                row.write({"value": 3})
            with contextlib.suppress(ZeroDivisionError), row.transaction():
                row.write({"value": 1 // 0})
            old = gate.open(Paused(lease))
        with client.lock("a").acquire() as newer:
            gate.open(newer)
            with pytest.raises(StaleFence):
                old.write({"value": 4})
    kinds = [kind for kind, *_ in told(client, plugin)]
    assert kinds == ["opened", "written", "written", "opened", "opened", "refused"]
    assert all(event.data["local"] for event in plugin.events), (
        "a file of SQLite is another one on another host"
    )


def test_a_lease_of_no_client_tells_nothing_and_works(tmp_path):
    class Bare:
        name, fence, exclusive = "a", 7, True

        def ensure_held(self):
            """Do nothing."""

    with guard.file(tmp_path / "x").open(Bare()) as opened:
        opened.write(b"one")
        assert opened.read() == b"one"


def work(client, gate):
    """Two holders, of whom the first is paused and writes late."""
    with client.lock("a").acquire() as lease:
        old = gate.open(Paused(lease))
        old.write(b"one")
    with client.lock("a").acquire() as newer, gate.open(newer) as opened:
        opened.write(b"two")
        with contextlib.suppress(StaleFence):
            old.write(b"late")
    client.close()
    return lease.fence, newer.fence


def test_an_audit_counts_guarded_writes_and_refusals(client, tmp_path):
    work(client, guard.file(tmp_path / "report"))
    found = audit(read_history())
    assert (found.verdict, found.writes, found.refused) == ("held", 2, 1)


def test_an_audit_finds_a_resource_that_does_not_compare(client, tmp_path):
    class Blind(PlainFile):
        def step(self, asked, value, end):
            if value is not None:
                self.path.write_bytes(value)

    older, newer = work(client, FenceGate(Blind(tmp_path / "report")))
    found = audit(read_history())
    assert found.verdict == "violated"
    (violation,) = found.violations
    assert [(step.kind, step.fence) for step in violation.steps] == [("opened", newer), ("written", older)]
    assert str(tmp_path / "report") in violation.steps[0].resource


def test_a_file_is_another_resource_on_another_host(client, tmp_path):
    work(client, FileGate(PlainFile(tmp_path / "report")))
    (resource,) = {step.resource for step in read_history().steps}
    assert resource.endswith(f" on {read_history().steps[0].owner.host}")


def test_an_audit_of_a_late_time_knows_the_fence_that_was_registered_before_it(client, tmp_path):
    work(client, guard.file(tmp_path / "report"))
    steps = read_history().steps
    last = max(step.at for step in steps)
    late = read_history(since=last).steps
    assert max(step.fence for step in late) == max(step.fence for step in steps)
    assert audit(read_history(since=last)).writes == 0
