"""The gate before a file or a link: the contract, no lost update, and what only files have."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import stat
import subprocess
import sys
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lockkit
from lockkit import guard
from lockkit.errors import (
    BackendError,
    BackendUnavailable,
    ConfigError,
    IncompatibleLayout,
    NotHeld,
    PermissionDenied,
    StaleFence,
)
from lockkit.guard import on_file
from lockkit.guard.on_file import FileGate, PlainFile
from support.guards import FakeLease, lost, lost_in_some_run
from support.guards.bytewise import Bytewise
from support.guards.contract import GateContract
from support.guards.mutants import never_stale, wants_a_higher_fence


@pytest.fixture
def path(tmp_path):
    return tmp_path / "report.txt"


class TestContract(GateContract):
    @pytest.fixture
    def make(self, path):
        return partial(guard.file, path)


class Pausing(PlainFile):
    """A file whose holder may be paused before each lock of the kernel that it takes."""

    def __init__(self, path, pause):
        super().__init__(path)
        self.pause = pause

    def _locked(self, end):
        self.pause()
        return super()._locked(end)


def counter(folder, kind=Pausing):
    return Bytewise(
        lambda key, pause: FileGate(kind(folder / key, pause)),
        lambda key: (folder / key).read_bytes() if (folder / key).exists() else None,
        lambda key, value: (folder / key).write_bytes(value),
    )


def test_an_unguarded_file_loses_updates(tmp_path):
    assert lost_in_some_run(counter(tmp_path), guarded=False)


def test_a_guarded_file_loses_none(tmp_path):
    assert not lost_in_some_run(counter(tmp_path))


@settings(max_examples=40)
@given(schedule=st.lists(st.integers(0, 5), max_size=30))
def test_a_guarded_file_loses_none_among_three_holders(tmp_path_factory, schedule):
    assert lost(counter(tmp_path_factory.mktemp("file")), schedule, holders=3) == 0


# -- mutants


class TwoSteps(Pausing):
    """A gate that lets go of the lock between the comparison and the rename."""

    def put(self, asked, prepared, end):
        with self._locked(end) as record:
            stored = self._read(record)
        if on_file.judged(stored, asked) == "STALE":
            return stored
        self.pause()
        prepared.replace(self.path)
        return None


def test_the_schedules_kill_a_gate_that_compares_and_then_writes(tmp_path):
    assert lost_in_some_run(counter(tmp_path, TwoSteps))


def test_the_schedules_kill_a_gate_that_does_not_compare(tmp_path, monkeypatch):
    monkeypatch.setattr(on_file, "judged", never_stale)

    assert lost_in_some_run(counter(tmp_path))


def test_the_contract_kills_a_gate_that_wants_a_higher_fence(path, monkeypatch):
    monkeypatch.setattr(on_file, "judged", wants_a_higher_fence)

    with pytest.raises(StaleFence):
        TestContract().test_the_same_lease_may_open_again(partial(guard.file, path))


# -- what only files have


def test_a_file_is_replaced_as_a_whole_and_keeps_its_mode(path):
    path.write_bytes(b"before")
    path.chmod(0o640)
    reader = path.open("rb")

    guard.file(path).open(FakeLease(3)).write(b"after")

    assert (reader.read(), path.read_bytes()) == (b"before", b"after")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert sorted(each.name for each in path.parent.iterdir()) == [".report.txt.lockkit-fence", "report.txt"]
    reader.close()


def test_a_prepared_file_is_put_in_place_or_refused(path, tmp_path):
    older, newer = guard.file(path).open(FakeLease(3)), guard.file(path).open(FakeLease(4))
    for name in ("old", "new"):
        (tmp_path / name).write_text(name)

    newer.publish(tmp_path / "new")
    with pytest.raises(StaleFence):
        older.publish(tmp_path / "old")

    assert path.read_text() == "new"
    assert (tmp_path / "old").exists()
    assert not (tmp_path / "new").exists()


def test_a_folder_is_put_in_place_by_a_link(tmp_path):
    current = tmp_path / "current"
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "content").write_text(name)
    older = guard.file(current).open(FakeLease(3))
    older.publish(tmp_path / "one")
    newer = guard.file(current).open(FakeLease(4))
    newer.publish(tmp_path / "two")

    with pytest.raises(StaleFence):
        older.publish(tmp_path / "three")

    assert (current / "content").read_text() == "two"
    assert newer.read() is None
    assert (tmp_path / "one").is_dir()


def test_a_link_to_a_file_is_a_name_of_that_file(path, tmp_path):
    path.write_text("first")
    link, more = tmp_path / "link", tmp_path / "more"
    link.symlink_to(path)
    more.symlink_to(link)
    older = guard.file(link).open(FakeLease(3))
    guard.file(path).open(FakeLease(4)).write(b"newer")

    with pytest.raises(StaleFence):
        older.write(b"older")
    with pytest.raises(StaleFence):
        guard.file(more).open(FakeLease(3))
    guard.file(more).open(FakeLease(5)).write(b"newest")

    assert path.read_text() == link.read_text() == "newest"
    assert link.is_symlink()


def test_a_link_that_leads_to_no_file_is_refused(path, tmp_path):
    """The link would have a record of its own, and the file behind it, once it exists, another one."""
    (tmp_path / "link").symlink_to(path)

    with pytest.raises(ConfigError, match="leads to no file"):
        guard.file(tmp_path / "link")


def test_a_path_that_becomes_a_link_to_a_file_is_refused(path, tmp_path):
    older = guard.file(path).open(FakeLease(3))
    other = tmp_path / "other"
    other.write_bytes(b"theirs")
    path.symlink_to(other)

    newer = guard.file(path).open(FakeLease(4))
    for attempt in (lambda: older.write(b"stale"), older.read, lambda: older.publish(_file(tmp_path))):
        with pytest.raises(BackendError, match="is a link by now"):
            attempt()
    newer.write(b"new")
    assert (path.is_symlink(), other.read_bytes()) == (True, b"new")


def _file(folder):
    made = folder / "prepared"
    made.write_bytes(b"stale")
    return made


def test_what_cannot_be_put_in_place_is_refused_at_once(path, tmp_path):
    guarded = guard.file(path).open(FakeLease(3))
    with pytest.raises(ConfigError, match="neither a file nor a folder"):
        guarded.publish(tmp_path / "missing")
    with pytest.raises(ConfigError, match="another file system"):
        guarded.publish("/proc/self/status")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="is a folder"):
        guard.file(tmp_path / "folder").open(FakeLease(3)).publish(tmp_path / "folder")


@pytest.mark.parametrize("bad", ["", "/", "a/", "a\0b", 7])
def test_what_is_no_path_of_a_file_is_refused(bad):
    with pytest.raises(ConfigError):
        guard.file(bad)


def test_a_network_file_system_is_refused(path, monkeypatch):
    monkeypatch.setattr(on_file, "network_filesystem", lambda folder: "nfs4")

    with pytest.raises(ConfigError, match="nfs4"):
        guard.file(path)


def test_the_wait_for_a_stopped_process_is_bounded(path):
    gate = guard.file(path, timeout=0.05)
    guarded = gate.open(FakeLease(3))
    guarded.write(b"one")
    with path.with_name(".report.txt.lockkit-fence").open("r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        with pytest.raises(BackendUnavailable, match="in the middle of a write"):
            guarded.write(b"two")

    assert gate.peek().value == b"one"


def test_a_record_that_is_replaced_before_it_is_locked_is_read_anew(path, monkeypatch):
    """As by `forget`, and a newer holder who begins a record of its own."""
    gate = guard.file(path)
    late = gate.open(FakeLease(3))

    def lock(record, how):
        monkeypatch.setattr(on_file.fcntl, "flock", flock)
        path.with_name(".report.txt.lockkit-fence").unlink()
        gate.open(FakeLease(5)).write(b"five")
        return flock(record, how)

    flock = fcntl.flock
    monkeypatch.setattr(on_file.fcntl, "flock", lock)
    with pytest.raises(StaleFence):
        late.write(b"three")
    assert path.read_bytes() == b"five"


def test_a_look_makes_no_record(path):
    path.write_bytes(b"before")
    assert guard.file(path).peek().value == b"before"
    assert sorted(path.parent.iterdir()) == [path]


def test_a_record_that_is_none_is_not_written_over(path):
    path.with_name(".report.txt.lockkit-fence").write_text("mine")

    with pytest.raises(IncompatibleLayout):
        guard.file(path).open(FakeLease(3))


def test_a_link_in_place_of_the_record_is_not_followed(path, tmp_path):
    path.with_name(".report.txt.lockkit-fence").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(lockkit.BackendError):
        guard.file(path).open(FakeLease(3))
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_missing_right_is_named(tmp_path):
    tmp_path.chmod(0o500)

    with pytest.raises(PermissionDenied, match="write in the folder"):
        guard.file(tmp_path / "x").open(FakeLease(3))


def test_a_child_that_was_forked_in_the_middle_of_a_write_does_not_keep_the_lock(path):
    """A descriptor of the record that somebody inherited would hold the lock for as long as they live."""
    program = f"""
import os, sys
from lockkit import guard
from lockkit.guard import on_file
sys.path.insert(0, {str(next(p for p in sys.path if p.endswith("tests")))!r})
from support.guards import FakeLease
guarded = guard.file({str(path)!r}, timeout=1).open(FakeLease(3))
right, pipe = on_file._sync, os.pipe()
def sync(folder):
    right(folder)
    if not os.fork():
        os.read(pipe[0], 1)
        os._exit(0)
on_file._sync = sync
guarded.write(b"one")
on_file._sync = right
try:
    guarded.write(b"two")
finally:
    os.write(pipe[1], b"x")
    os.wait()
print(guarded.read().decode())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert (done.stdout, done.stderr) == ("two\n", "")


def test_a_child_that_was_forked_while_another_thread_wrote_is_refused_and_does_not_hang(path):
    with lockkit.connect("memory:") as client, client.lock("report").acquire() as lease:
        guarded = lockkit.guard.file(path).open(lease)
        guarded._mutex.acquire()  # as another thread has it
        child = os.fork()
        if not child:
            signal.alarm(30)
            try:
                with pytest.raises(NotHeld):
                    guarded.write(b"the child's")
                os._exit(0)
            finally:
                os._exit(1)
        guarded._mutex.release()
        assert os.waitpid(child, 0)[1] == 0


def test_a_real_lease_is_taken_and_a_shared_one_is_not(path):
    with lockkit.connect("memory:") as client:
        with client.lock("report").acquire() as lease, lockkit.guard.file(path).open(lease) as guarded:
            guarded.write(b"one")
            assert guarded.fence == lease.fence
        with client.rwlock("index").write().acquire() as lease:
            assert lease.exclusive
        for shared in (client.rwlock("index").read(), client.semaphore("few", 2)):
            with shared.acquire() as lease, pytest.raises(ConfigError, match="shared"):
                lockkit.guard.file(path).open(lease)
        with pytest.raises(lockkit.NotHeld):
            lockkit.guard.file(path).open(_released(client))


def test_a_whole_semaphore_or_member_of_a_pool_is_exclusive_and_a_share_is_not(path):
    with lockkit.connect("memory:") as client:
        cards = client.pool("cards", {"0": 80, "1": 80})
        for whole in (client.semaphore("few", 2, permits=2), client.semaphore("one", 1)):
            with (
                whole.acquire() as lease,
                lockkit.guard.file(path.with_name(whole.name)).open(lease) as guarded,
            ):
                guarded.write(b"one")
        with cards.acquire() as leases, lockkit.guard.file(path).open(leases[0]) as guarded:
            guarded.write(b"one")
        with cards.acquire(each=79) as leases, pytest.raises(ConfigError, match="shared"):
            lockkit.guard.file(path).open(leases[0])


def test_the_lease_of_the_asyncio_face_is_taken_and_those_of_several_locks_are_not(path):
    async def asynchronous():
        async with (
            lockkit.aio.connect("memory:") as client,
            client.lock("report").acquire() as lease,
        ):
            with lockkit.guard.file(path).open(lease) as guarded:
                guarded.write(b"one")
            return lease.exclusive

    assert asyncio.run(asynchronous())
    with (
        lockkit.connect("memory:") as client,
        client.all_of([client.lock("a"), client.lock("b")]).acquire() as leases,
    ):
        with pytest.raises(ConfigError, match="not Leases"):
            lockkit.guard.file(path).open(leases)
        lockkit.guard.file(path).open(leases[0])


PROGRAM = """
import sys
import lockkit
with lockkit.guard.file(sys.argv[1]).open(lockkit.guard.run_lease()) as guarded:
    guarded.write(b"fence %d" % guarded.fence)
print(lockkit.guard.run_lease("nightly"))
"""


def test_the_command_of_a_run_takes_the_lease_of_the_run(path, tmp_path):
    environ = {**os.environ, "LOCKKIT_STATE_DIR": str(tmp_path / "state")}
    run = [sys.executable, "-m", "lockkit", "run"]
    command = ["nightly", "--", sys.executable, "-c", PROGRAM, str(path)]

    done = subprocess.run([*run, *command], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("RunLease(name='nightly', fence=")
    assert path.read_text().removeprefix("fence ") in done.stdout

    shared = subprocess.run(
        [*run, "--shared", *command], env=environ, capture_output=True, text=True, check=False
    )
    assert "shared" in shared.stderr


def _run_lease(tmp_path, *words):
    program = """
import lockkit
try:
    print(lockkit.guard.run_lease())
except lockkit.ConfigError as error:
    print(error)
"""
    environ = {**os.environ, "LOCKKIT_STATE_DIR": str(tmp_path / "state")}
    line = [sys.executable, "-c", program]
    for run in reversed(words):
        line = [sys.executable, "-m", "lockkit", "run", *run.split(), "--", *line]
    return subprocess.run(line, env=environ, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    "words, expected",
    [
        (("a", "b"), "name='b'"),
        (("a", "b", "a --nested reuse"), "name='a'"),
        (("a b", "b c --nested reuse"), "several locks: 'b', 'c'"),
        (("a b",), "several locks: 'a', 'b' (name the one that guards the resource: run_lease('a'))"),
        (("a b", "c", "a b --nested reuse"), "several locks: 'a', 'b'"),
        (("a b", "--any --nested reuse b c"), "name='b'"),
    ],
)
def test_the_lease_is_that_of_the_lock_of_the_innermost_run(tmp_path, words, expected):
    """The fence of another lock may be younger than that of a newer holder, which it would overwrite."""
    assert expected in _run_lease(tmp_path, *words)


@pytest.mark.parametrize("held", ["", "[", "{}", '[{"name": "a"}]', '[{"name": "a", "fence": "1"}]', "[1]"])
def test_without_a_run_there_is_no_such_lease(monkeypatch, held):
    monkeypatch.setenv("LOCKKIT_HELD", held)

    with pytest.raises(lockkit.NotHeld, match="no lockkit run"):
        lockkit.guard.run_lease()
    with pytest.raises(lockkit.NotHeld, match="lockkit run nightly --"):
        lockkit.guard.run_lease("nightly")


def _released(client):
    lease = client.lock("report").acquire()
    lease.release()
    return lease
