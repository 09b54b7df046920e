"""A client's first row in the journal: written before its first claim; a failed write costs no lock."""

from __future__ import annotations

import asyncio
import errno
import json
import threading

import pytest

import lockkit
import lockkit.aio
from lockkit.observe import event_journal
from lockkit.observe.audit import audit
from lockkit.observe.event_journal import EventJournal
from lockkit.observe.history import read_history
from lockkit.testing.children import Child


@pytest.fixture
def journal(tmp_path, monkeypatch):
    """The path of the journal."""
    monkeypatch.setenv("LOCKKIT_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(event_journal, "_PATIENCE", 60.0)  # a busy machine may take long to start a thread
    return tmp_path / "state" / "journal" / "events.jsonl"


@pytest.fixture
def asleep(monkeypatch):
    """The thread that writes events does not get to run, as in the moment before a process is killed."""
    monkeypatch.setattr(EventJournal, "lockkit_event", lambda self, event: None)


def connect(**settings):
    return lockkit.connect("sqlite:", journal=True, **settings)


def kinds(path):
    return [json.loads(row)["kind"] for row in path.read_text().splitlines() if row]


@pytest.mark.usefixtures("asleep")
def test_a_process_that_was_killed_before_it_wrote_of_its_grant_is_counted(journal):
    def hold(parent):
        parent.tell(connect().lock("a").acquire().claim_id)
        parent.hear()

    with connect() as client, client.lock("b"):
        pass
    holder = Child(hold)
    try:
        holder.read(60.0)
        killed = holder.pid
    finally:
        holder.kill()

    found = audit(read_history())

    assert [owner.pid for owner in found.gaps.unended] == [killed]
    assert found.verdict == "incomplete"


@pytest.mark.usefixtures("asleep")
@pytest.mark.parametrize(
    "take",
    [
        lambda client: client.lock("a").acquire(),
        lambda client: client.lock("a").try_acquire(),
        lambda client: client.all_of([client.lock("a"), client.lock("b")]).acquire(),
        lambda client: client.pool("p", ["1", "2"]).acquire(),
    ],
    ids=["acquire", "try_acquire", "all_of", "pool"],
)
def test_the_row_is_there_when_a_lock_is_taken(journal, take):
    with connect() as client, take(client):
        assert kinds(journal) == ["opened"]


@pytest.mark.usefixtures("asleep")
def test_the_row_is_there_when_a_coroutine_takes_a_lock(journal):
    async def main():
        async with lockkit.aio.connect("sqlite:", journal=True) as client, client.lock("a"):
            return kinds(journal)

    assert asyncio.run(main()) == ["opened"]


def test_the_row_comes_first_and_once_for_many_threads(journal):
    with connect() as client:
        client.driver()
        barrier = threading.Barrier(8)

        def work(number):
            barrier.wait(60)
            with client.lock(f"n{number}"):
                assert kinds(journal)[0] == "opened"

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        with client.lock("later"):
            pass
    rows = kinds(journal)
    assert (rows.count("opened"), rows.count("acquired"), rows[0], rows[-1]) == (1, 9, "opened", "closed")
    assert not read_history().gaps
    assert audit(read_history()).verdict == "held"
    assert not read_history().happenings


def test_a_client_that_only_looks_leaves_no_such_row(journal):
    with connect() as client:
        client.inspect("a")
        client.names()
    assert kinds(journal) == ["closed"]


def test_a_full_disk_costs_no_lock_and_is_counted(journal, monkeypatch):
    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    real = event_journal.append
    monkeypatch.setattr(event_journal, "append", full)
    with connect() as client:
        with client.lock("a"):
            assert client.stats()["events_dropped"] >= 1
        client.driver().dispatcher.flush(20.0)
        dropped = client.stats()["events_dropped"]
        monkeypatch.setattr(event_journal, "append", real)
        with client.lock("b"):
            pass
    assert dropped == 3
    assert read_history().gaps.missed == 3


def test_a_folder_that_hangs_costs_no_lock_and_is_logged(journal, monkeypatch, caplog):
    hangs, real = threading.Event(), event_journal.append

    def hang(*args, **options):
        hangs.wait(120)
        real(*args, **options)

    monkeypatch.setattr(event_journal, "append", hang)
    monkeypatch.setattr(event_journal, "_PATIENCE", 0.25)
    client = connect()
    try:
        with client.lock("a"):
            assert not hangs.is_set()
            assert not journal.exists()
        assert "no audit will know of it" in caplog.text
    finally:
        hangs.set()
        client.driver().dispatcher.flush(20.0)
        client.close()
    assert kinds(journal)[0] == "opened"
    assert not read_history().gaps


def test_a_forked_child_has_a_row_of_its_own(journal):
    def work(parent):
        with client.lock("b"):
            parent.tell("held")
            parent.hear()

    with connect() as client, client.lock("a"):
        client.driver().dispatcher.flush(20.0)
        child = Child(work)
        try:
            child.read(60.0)
            killed = child.pid
        finally:
            child.kill()
    assert kinds(journal).count("opened") == 2
    assert [owner.pid for owner in read_history().gaps.unended] == [killed]
