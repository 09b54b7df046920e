"""Each proof that an eviction needs: the process is dead, its children are dead, the claim is its own."""

from __future__ import annotations

import errno
import logging
import os
import select
import subprocess
import sys
import time

import pytest

import lockkit
from lockkit.errors import BackendUnavailable
from lockkit.integrations.celery import freeing, held_by_child
from lockkit.integrations.celery import watch as watching
from lockkit.integrations.celery.freeing import Dead, free, left_behind
from lockkit.integrations.celery.held_by_child import (
    Greeting,
    Note,
    open_channel,
    read_greeting,
    read_notes,
    recorded,
)
from lockkit.integrations.celery.watch import Watch, _Process
from lockkit.lib.descent import children
from lockkit.store import log
from lockkit.testing.processes import until
from lockkit.values.identity import process_start
from support.holders import HOLD


@pytest.fixture
def client(rig, tmp_path):
    return rig.client(state_dir=str(tmp_path))


@pytest.fixture
def holder(rig):
    """A process that holds the lock `job`, and that this process has started."""
    rig.store.cli("FLUSHALL")
    program = HOLD.format(url=rig.environ["LOCKKIT_URL"], connect="", terms=", ttl=60")
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline()
        yield process
        process.kill()


def dead(pid, started, **about):
    return Dead(
        pid, started, [Note(("job",), run="proj.task[1]", **about)], "was killed by SIGKILL", time.monotonic()
    )


def test_a_process_that_lives_keeps_its_claim(client, holder):
    assert free(client, dead(holder.pid, process_start(holder.pid)), [holder.pid])[0] == 1
    assert client.inspect("job").holders


def test_a_stopped_process_lives(client, holder):
    import signal

    holder.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, holder.pid, os.WSTOPPED | os.WNOWAIT)
    assert free(client, dead(holder.pid, process_start(holder.pid)), [holder.pid])[0] == 1
    assert client.inspect("job").holders


def test_the_claim_of_a_dead_process_is_evicted(client, holder):
    started = process_start(holder.pid)
    holder.kill()
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # a zombie is dead, too
    assert free(client, dead(holder.pid, started), []) == (0, ())
    assert not client.inspect("job").claims


@pytest.mark.parametrize("pid, start", [(0, 1), (1, 0)], ids=["start", "pid"])
def test_a_dead_process_of_another_pid_or_start_is_another_one(client, holder, pid, start):
    """Two processes of a pool that died may have noted the same lock."""
    started = process_start(holder.pid)
    holder.kill()
    holder.wait()
    servers = children(os.getpid())  # may be younger than a second
    assert free(client, dead(holder.pid + pid, started - start), servers) == (0, ())
    assert client.inspect("job").holders


def test_a_child_that_is_not_known_as_its_own_keeps_the_claim(client, holder):
    """An orphan becomes a child of the worker's main process, which this process plays."""
    started = process_start(holder.pid)
    with subprocess.Popen(["sleep", "600"]) as other:
        try:
            holder.kill()
            holder.wait()
            left, keepers = free(client, dead(holder.pid, started), [])
            assert left == 1
            assert [keeper.pid for keeper in keepers] == [other.pid]
            assert client.inspect("job").holders
            assert free(client, dead(holder.pid, started), [other.pid]) == (0, ())
        finally:
            other.kill()


def test_an_older_child_and_a_dead_one_keep_nothing():
    with subprocess.Popen(["sleep", "600"]) as other:
        started = process_start(other.pid)
        assert [keeper.pid for keeper in left_behind(started, [])] == [other.pid]
        assert left_behind(started + 1, []) == ()
        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        assert left_behind(started, []) == ()


@pytest.mark.parametrize("about", [{"min_hold": 600.0}, {"lock_delay": 600.0}])
def test_what_blocks_a_lock_on_purpose_goes_on(client, holder, about):
    started = process_start(holder.pid)
    holder.kill()
    holder.wait()
    assert free(client, dead(holder.pid, started, **about), [])[0] == 1
    assert client.inspect("job").holders


@pytest.mark.parametrize("folder", [True, False], ids=["full", "no folder"])
def test_a_journal_that_cannot_be_written_keeps_no_lock(client, holder, monkeypatch, caplog, folder):
    def unusable(*_, **__):
        raise BackendUnavailable("no state folder")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(freeing.journal, "append", full if folder else pytest.fail)
    if not folder:
        monkeypatch.setattr(type(client.config), "state_place", unusable)
    started = process_start(holder.pid)
    holder.kill()
    holder.wait()
    assert free(client, dead(holder.pid, started), []) == (0, ())
    assert "the journal of recovery cannot be written" in caplog.text


# -- the record


@pytest.fixture
def channel(monkeypatch):
    for name in ("_channel", "_main", "_record"):
        monkeypatch.setattr(held_by_child, name, getattr(held_by_child, name))
    with open_channel() as mine:
        yield mine
        held_by_child._channel.close()


def in_a_child(play):
    """Run a function in a forked child, which is killed by SIGKILL at its end."""
    pid = os.fork()
    if pid == 0:
        try:
            play()
        finally:
            os.kill(os.getpid(), 9)
    assert os.waitpid(pid, 0)[1] == 9
    return pid


@pytest.fixture
def lender():
    """A client of a store that has nothing to lend."""
    with lockkit.connect(f"memory://{os.urandom(8).hex()}") as client:
        yield client


def test_the_record_outlives_its_process(channel, lender):
    note = Note(("a", "b"), "@pool/x", "proj.task[1]", "1", 1.0, 2.0)

    def play():
        with recorded(lender, Note(("earlier",))):
            pass
        with recorded(lender, note):
            os.kill(os.getpid(), 9)

    pid = in_a_child(play)
    greeting = read_greeting(channel)
    assert (greeting.pid, greeting.pool) == (pid, False)
    assert read_notes(greeting.record) == ((note,), False)
    os.close(greeting.record)
    assert read_greeting(channel) is None


def test_only_what_was_not_released_is_in_the_record(channel, lender):
    def play():
        with recorded(lender, Note(("outer",))):
            with recorded(lender, Note(("inner",))):
                pass
            os.kill(os.getpid(), 9)

    in_a_child(play)
    greeting = read_greeting(channel)
    assert [note.names for note in read_notes(greeting.record)[0]] == [("outer",)]
    # A line that a crash has cut short was not followed by a request.
    size = os.fstat(greeting.record).st_size
    os.pwrite(greeting.record, b'{"add": 9, "names": ["to', size)
    assert [note.names for note in read_notes(greeting.record)[0]] == [("outer",)]
    os.close(greeting.record)


def test_a_forked_process_has_a_record_of_its_own(channel, lender):
    def play():
        with recorded(lender, Note(("parent",))):
            inner = os.fork()
            if inner == 0:
                with recorded(lender, Note(("child",))):
                    os.kill(os.getpid(), 9)
            os.waitpid(inner, 0)
            os.kill(os.getpid(), 9)

    in_a_child(play)
    found = [read_greeting(channel), read_greeting(channel)]
    assert [[note.names for note in read_notes(one.record)[0]] for one in found] == [
        [("parent",)],
        [("child",)],
    ]
    for one in found:
        os.close(one.record)


def test_a_process_that_ends_by_itself_says_so(channel, lender):
    def play():
        with recorded(lender, Note(("a",))) as exits:
            exits()
            os._exit(3)

    pid = os.fork()
    if pid == 0:
        play()
    os.waitpid(pid, 0)
    greeting = read_greeting(channel)
    assert read_notes(greeting.record) == ((Note(("a",)),), True)
    os.close(greeting.record)


def test_the_main_process_records_nothing(channel, lender):
    with recorded(lender, Note(("main",))):
        assert read_greeting(channel) is None


# -- the watch


@pytest.fixture
def watch(monkeypatch):
    """A watch whose thread a test plays."""
    for name in ("_channel", "_main", "_record"):
        monkeypatch.setattr(held_by_child, name, getattr(held_by_child, name))
    made = Watch(lambda: None, list)
    yield made
    made._greetings.close()
    held_by_child._channel.close()


def test_a_watch_that_ends_with_an_error_keeps_no_claim_alive(watch, monkeypatch):
    there, pulse = os.pipe()
    watch._processes[1] = _Process(Greeting(1, 1.0, pool=True, record=0), None, pulses=[pulse])

    def fails():
        raise RuntimeError("something else")

    monkeypatch.setattr(watch, "_wait", fails)
    watch._run()
    assert os.read(there, 1) == b""
    os.close(there)


def test_a_log_that_raises_keeps_no_claim_alive(watch, monkeypatch):
    class Mistaken(logging.Filter):
        """A filter that expects of each record what only the records of its program have."""

        def filter(self, record):
            return record.request_id is not None

    there, pulse = os.pipe()
    watch._processes[1] = _Process(Greeting(1, 1.0, pool=True, record=0), None, pulses=[pulse])

    def fails():
        raise RuntimeError("something else")

    monkeypatch.setattr(watch, "_wait", fails)
    handler = logging.StreamHandler()
    handler.addFilter(Mistaken())
    logging.getLogger("lockkit").addHandler(handler)
    try:
        watch.start()
        assert select.select([there], [], [], 30.0)[0], (
            "what keeps the claims of the dead alive is not closed"
        )
        assert os.read(there, 1) == b""
        until(lambda: not log.pending(), "the log is written")
    finally:
        logging.getLogger("lockkit").removeHandler(handler)
        os.close(there)


def test_a_process_that_cannot_be_watched_does_not_end_the_watch(watch, lender, monkeypatch, caplog):
    def fails(_):
        raise OSError(errno.EMFILE, "Too many open files")

    def play():
        with recorded(lender, Note(("a",))):
            os.kill(os.getpid(), 9)

    monkeypatch.setattr(watching, "_pidfd_of", fails)
    pid = in_a_child(play)
    watch._read_greetings()
    assert f"process {pid} cannot be watched" in caplog.text
    assert not watch._processes
