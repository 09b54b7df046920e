"""The files of the embedded store removed, replaced and restored under processes that have them open."""

from __future__ import annotations

import contextlib
import fcntl
import fnmatch
import gc
import itertools
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

import lockkit
from lockkit.errors import LeaseLost
from lockkit.store.spi import ABSENT, RELEASED, Busy, Granted, OpenOptions, Queued, Refused
from lockkit.testing.children import Child
from lockkit.testing.claims import claim, take
from lockkit.testing.interrupts import Bomb, CtrlC
from lockkit.testing.processes import until
from lockkit_sqlite import connection, files
from lockkit_sqlite.backend import adopt_store, open_store
from lockkit_sqlite.connection import OPENING, Connection
from lockkit_sqlite.place import make_file, prepare
from lockkit_sqlite.presence import enter
from lockkit_sqlite.pulse import ALIVE, probe
from lockkit_sqlite.pulses import LISTENER
from lockkit_sqlite.store import _LOOK as LOOK
from support.handlers import Handler

SUFFIXES = ("", "-wal", "-shm")


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "state"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
def path(folder):
    return folder / "locks.db"


@pytest.fixture
def url(path):
    return f"sqlite:{path}"


@pytest.fixture
def opened(url):
    """Opens stores of this process, and closes them."""
    with contextlib.ExitStack() as stack:

        def start():
            store = open_store(url, OpenOptions())
            stack.callback(store.close)
            return store

        yield start


def soon(call, *given, **terms):
    """The result of a call, repeated while other processes have damaged files open or repair them."""
    while True:
        try:
            return call(*given, **terms)
        except Refused as refusal:
            if not refusal.retry:
                raise


class Actor:
    """The calls of a process to its store."""

    def __init__(self, store):
        self.store = store
        self.held = {}

    def hold(self, name, **terms):
        self.held[name] = take(self.store, name=name, **terms)
        return self.held[name][1]

    def hold_soon(self, name, **terms):
        return soon(self.hold, name, **terms)

    def beat(self, name):
        one, fence = self.held[name]
        renewal = self.store.renew([(one, fence)], 2.0)[0]
        return [renewal.state, renewal.why]

    def free(self, name):
        return self.store.release(self.held[name][0], 2.0)

    def attempt(self, name):
        answer = soon(self.store.acquire, claim(name=name, wait=False), True, 2.0)
        return answer.fence if isinstance(answer, Granted) else type(answer).__name__


@pytest.fixture
def process(url):
    """Starts processes with an open store each; each runs one line of Python and answers its value."""
    with contextlib.ExitStack() as stack:

        def start():
            def play(parent):
                actor = Actor(soon(open_store, url, OpenOptions()))
                known = {name: getattr(actor, name) for name in dir(actor)}
                parent.tell("open")
                while True:
                    parent.tell(eval(parent.hear(), known))

            child = Child(play)
            stack.callback(child.kill)
            assert child.hear() == "open"

            def do(line):
                child.tell(line)
                return child.hear()

            do.child = child
            return do

        yield start


def remove(path, suffixes):
    for suffix in suffixes:
        Path(f"{path}{suffix}").unlink()
    if "" not in suffixes:
        time.sleep(LOOK)  # each process looks at these files with its next call then


def replace(path):
    """Another store's file in place of the database, and no log."""
    other = path.with_name("other.db")
    with closing(open_store(f"sqlite:{other}", OpenOptions())) as store:
        take(store, name="another", pulseless=True)
    other.replace(path)
    remove(path, ("-wal", "-shm"))


def restore(path, suffixes=()):
    """A backup in place of the database, as cp and mv make it."""
    backup = path.with_name("backup.db")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(backup)) as target:
        source.backup(target)
    backup.replace(path)
    remove(path, suffixes)


def move_folder(path):
    path.parent.rename(path.parent.with_name("elsewhere"))


DAMAGE = {
    **{
        "+".join(suffix or "db" for suffix in some): lambda path, some=some: remove(path, some)
        for count in (1, 2, 3)
        for some in itertools.combinations(SUFFIXES, count)
    },
    "folder": lambda path: shutil.rmtree(path.parent),
    "folder moved": move_folder,
    "replaced": replace,
    "backup": restore,
    "backup, no log": lambda path: restore(path, ("-wal", "-shm")),
    "db and its folder of FIFOs": lambda path: (remove(path, SUFFIXES), shutil.rmtree(f"{path}.pulses")),
}
every_damage = pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())


@every_damage
@pytest.mark.parametrize("bound", [False, True], ids=["ttl", "process-bound"])
@pytest.mark.parametrize("first", ["holder", "idle"])
def test_whatever_is_removed_the_holder_is_told_at_its_next_beat_and_all_meet_again(
    process, path, damage, bound, first
):
    holder, idle = process(), process()
    assert idle("attempt('warm')")
    fence = holder(f"hold('x', ttl=60, process_bound={bound})")
    damage(path)

    if first == "holder":
        assert holder("beat('x')") == ["LOST", "files"]
        taken = idle("hold_soon('x', ttl=60)")
    else:
        idle.child.tell("hold_soon('x', ttl=60)")  # which waits for the holder to leave
        assert holder("beat('x')") == ["LOST", "files"]
        taken = idle.child.hear()
    newcomer, idle = idle, process()
    assert idle("attempt('x')") == "Busy"
    assert taken > fence
    assert newcomer("beat('x')") == ["HELD", ""]
    assert holder("attempt('x')") == "Busy"
    assert holder("free('x')") == "ABSENT"
    assert newcomer("free('x')") == "RELEASED"
    assert holder("attempt('x')") > taken


@every_damage
def test_a_newcomer_is_kept_out_of_damaged_files_as_long_as_anybody_has_them_open(
    process, opened, path, damage
):
    """Only removed together with its lock file, a store is made anew at once."""
    holder, idle = process(), process()
    fence = holder("hold('x', ttl=60)")
    idle("hold('y', ttl=60)")
    damage(path)
    if not Path(f"{path}-lock").exists():
        assert take(opened(), name="x")[1] > fence
        return

    for one in (holder, idle):
        with pytest.raises(Refused, match=rf"open: pid .*\b{one.child.pid}\b"):
            open_store(f"sqlite:{path}", OpenOptions(budget=0.1))
        assert one(f"beat('{'x' if one is holder else 'y'}')") == ["LOST", "files"]

    assert take(opened(), name="x")[1] > fence


@every_damage
def test_whatever_is_removed_a_release_says_that_the_hold_was_lost(process, path, damage):
    holder = process()
    holder("hold('x', ttl=60)")
    damage(path)
    assert holder("free('x')") == ABSENT


@every_damage
def test_processes_that_find_it_out_at_once_make_one_store(process, path, damage):
    everybody = [process() for _ in range(4)]
    for number, one in enumerate(everybody):
        one(f"hold('mine{number}', ttl=60)")
    damage(path)
    for one in everybody:
        one.child.tell("attempt('x')")
    answers = [one.child.hear() for one in everybody]
    assert sorted(type(answer).__name__ for answer in answers) == ["int", "str", "str", "str"]
    for number, one in enumerate(everybody):
        assert one(f"beat('mine{number}')") == ["LOST", "files"]
    assert process()("attempt('x')") == "Busy"


@every_damage
def test_all_stores_of_one_process_come_over(opened, process, path, damage):
    """SQLite shares the log's index among a process's connections, whatever bears its name by then."""
    mine, other = opened(), opened()
    one, fence = take(mine, name="x", ttl=60)
    two, second = take(other, name="y", ttl=60)
    damage(path)
    third = opened()
    newcomer = process()
    taken = newcomer("hold('x', ttl=60)")
    assert taken > fence
    assert isinstance(third.acquire(claim(name="x", wait=False), True, 2.0), Busy)
    assert mine.renew([(one, fence)], 2.0)[0].why == "files"
    assert other.renew([(two, second)], 2.0)[0].why == "files"
    for store in (mine, other, third):
        assert isinstance(store.acquire(claim(name="x", wait=False), True, 2.0), Busy)
    assert newcomer("beat('x')") == ["HELD", ""]


def test_the_last_ones_leaving_which_removes_the_log_is_no_damage(process, opened, path):
    for _ in range(5):
        store = opened()
        one, fence = take(store, name="x", ttl=60)
        guest = process()
        guest("hold('y', ttl=60)")
        assert guest("free('y')") == RELEASED
        guest("store.close()")
        assert store.renew([(one, fence)], 2.0)[0].state == "HELD"
        assert store.release(one, 2.0) == RELEASED
        store.close()
        assert not Path(f"{path}-wal").exists()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT key FROM meta ORDER BY key").fetchall() == [
            ("file",),
            ("layout",),
            ("lock",),
        ]


def test_a_store_that_is_opened_while_the_last_one_of_its_process_closes_finds_what_was_held(
    opened, path, monkeypatch
):
    """On a busy machine the closing thread may wait before its next step, and SQLite has removed the log."""
    leaving, newcomers = opened(), []
    take(leaving)
    close = Connection.close

    def close_and_open(connection):
        close(connection)
        if not newcomers and not Path(f"{path}-wal").exists():
            newcomers.append(opened())

    monkeypatch.setattr(Connection, "close", close_and_open)
    leaving.close()

    assert isinstance(newcomers[0].acquire(claim(wait=False), True, 2.0), Busy)
    assert newcomers[0]._opened.anew() == (0.0, "")


def test_a_store_that_is_opened_while_the_last_one_of_its_process_closes_keeps_cleaners_off(
    opened, folder, monkeypatch
):
    leaving = opened()
    took = files.Files.took

    def take_and_leave(*given, **how):
        done = took(*given, **how)
        leaving.close()
        return done

    monkeypatch.setattr(files.Files, "took", take_and_leave)
    opened()

    cleaner = os.open(folder, os.O_RDONLY)
    try:
        with pytest.raises(BlockingIOError):
            fcntl.flock(cleaner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(cleaner)


def test_a_store_that_is_closed_while_a_renewal_looks_at_its_files_stays_closed(opened, path):
    """The log is gone because the store is closed, and not because somebody removed it."""
    store = opened()
    held = take(store)
    whole = store._opened.whole

    def close_and_look():
        store._opened.whole = whole
        store.close()
        return whole()

    store._opened.whole = close_and_look
    with pytest.raises(Refused):
        store.renew([held], 2.0)

    assert [store._opened.calls.open, store._opened.beats.open] == [None, None]
    assert not Path(f"{path}-wal").exists()


def test_a_store_that_is_closed_while_it_moves_to_other_files_stays_closed(opened, path, monkeypatch):
    store = opened()
    took = files.Files.took

    def close_and_take(*given, **how):
        store.close()
        return took(*given, **how)

    monkeypatch.setattr(files.Files, "took", close_and_take)
    path.unlink()
    with pytest.raises(Refused):
        store.acquire(claim(), True, 2.0)

    assert [store._opened.calls.open, store._opened.beats.open] == [None, None]
    assert not Path(f"{path}-wal").exists()
    assert list(Path(f"{path}.pulses").iterdir()) == []


def test_processes_that_come_and_go_are_no_damage(process, path):
    def come_and_go():
        def play(parent):
            for _ in range(40):
                store = open_store(f"sqlite:{path}", OpenOptions())
                one, fence = take(store, name=f"n{os.getpid()}", ttl=60)
                assert store.renew([(one, fence)], 2.0)[0].state == "HELD"
                assert store.release(one, 2.0) == RELEASED
                store.close()
            return "done"

        return Child(play)

    children = [come_and_go() for _ in range(4)]
    for child in children:
        assert child.hear() == "done"
        child.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT key FROM meta ORDER BY key").fetchall() == [
            ("file",),
            ("layout",),
            ("lock",),
        ]


def test_a_restored_backup_is_not_taken_for_the_store_but_its_records_and_fences_go_on(opened, path):
    store = opened()
    _, fence = take(store, name="x", ttl=60, process_bound=True)
    store.put_record("gpu", {"quarantined": True}, 0, 2.0)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE entries SET since = ? WHERE namespace = ''", (fence + 10**12,))
        connection.commit()
    store.close()
    shutil.copy(path, path.with_name("backup.db"))
    remove(path, [""])
    path.with_name("backup.db").rename(path)

    again = opened()

    one, taken = take(again, name="x")
    assert taken > fence + 10**12
    assert again.record("gpu", 2.0).value == {"quarantined": True}
    (told,) = [found for found in again.check(2.0) if found.check == "files"]
    assert told.severity == "warning"
    assert "copy" in told.message
    assert again.release(one, 2.0) == RELEASED


def test_fences_rise_over_damage_although_the_wall_clock_is_behind_them(opened, path):
    store = opened()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE entries SET since = since + ? WHERE namespace = ''", (2 * 10**15,))
        connection.commit()
    one, fence = take(store, name="x")
    assert store.release(one, 2.0) == RELEASED
    remove(path, ["-wal", "-shm"])
    assert take(store, name="x")[1] > fence


def test_a_link_that_leads_elsewhere_is_a_replaced_store(tmp_path, folder):
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    (tmp_path / "current").symlink_to(folder)
    store = open_store(f"sqlite:{tmp_path}/current/locks.db", OpenOptions())
    one, fence = take(store, name="x", ttl=60)
    (tmp_path / "next").symlink_to(other)
    (tmp_path / "next").rename(tmp_path / "current")
    assert store.renew([(one, fence)], 2.0)[0].why == "files"
    with closing(open_store(f"sqlite:{other}/locks.db", OpenOptions())) as there:
        take(there, name="x", ttl=60)
        assert isinstance(store.acquire(claim(name="x", wait=False), True, 2.0), Busy)
    store.close()


class Cleaner:
    """Removes something once, before the n-th line that this thread executes while opening a store alone."""

    def __init__(self, clean, at):
        self.clean, self.at, self.lines = clean, at, set()

    def __enter__(self):
        self.before = sys.gettrace()
        sys.settrace(self.trace)
        return self

    def __exit__(self, *_):
        sys.settrace(self.before)

    def trace(self, frame, event, _):
        code = frame.f_code
        if not code.co_filename.endswith("lockkit_sqlite/opening.py") and code is not make_file.__code__:
            return None
        if event == "line" and (code, frame.f_lineno) not in self.lines:
            self.lines.add((code, frame.f_lineno))
            if len(self.lines) == self.at:
                self.clean()
        return self.trace


@pytest.mark.parametrize("removed", ["the database", "its folder"])
def test_what_is_removed_at_any_moment_of_an_opening_is_made_anew(tmp_path, removed):
    for at in itertools.count(1):
        path = tmp_path / str(at) / "locks.db"
        path.parent.mkdir(mode=0o700)

        def clean(path=path):
            if removed == "the database":
                path.unlink(missing_ok=True)
            else:
                shutil.rmtree(path.parent)

        with Cleaner(clean, at) as cleaner:
            store = open_store(f"sqlite:{path}", OpenOptions())

        with closing(store):
            assert store.release(take(store)[0], 2.0) == RELEASED
            assert store._opened.whole(), f"line {at}: other files have the names"
        assert not descriptors(path.parent), f"line {at}: a connection stays open"
        if len(cleaner.lines) < at:
            break
    assert at > 50


def meet(store, other, path):
    """Both want one lock, and exactly one of them gets it, once both have left the old files."""
    if not path.exists() and not Path(f"{path}-lock").exists():
        assert other("hold('x', ttl=60)")
        assert isinstance(store.acquire(claim(name="x", wait=False), True, 2.0), Busy)
        return
    other.child.tell("attempt('x')")
    mine = soon(store.acquire, claim(name="x", wait=False, ttl=60), True, 2.0)
    assert sorted([type(mine), type(other.child.hear())], key=str) in ([int, Busy], [Granted, str])


@pytest.fixture
def link(tmp_path, path):
    """The database by another name: a link in a folder of its own."""
    made = tmp_path / "links" / "name.db"
    made.parent.mkdir(mode=0o700)
    made.symlink_to(path)
    return made


@every_damage
def test_whatever_is_removed_a_store_named_by_a_link_in_another_folder_comes_over(
    process, path, link, damage
):
    path.touch(mode=0o600)
    with closing(open_store(f"sqlite:{link}", OpenOptions())) as store:
        other = process()  # before the damage: a fork opens the files anew
        one, fence = take(store, name="mine", ttl=60)
        damage(path)

        meet(store, other, path)
        assert store.renew([(one, fence)], 2.0)[0].why == "files"


@pytest.mark.parametrize("turned", ["the link", "a link on the way", "the folder of the link"])
def test_a_store_named_by_a_link_in_another_folder_follows_the_links(tmp_path, path, folder, link, turned):
    path.touch(mode=0o600)
    other = tmp_path / "other"
    other.mkdir(mode=0o700)
    with closing(open_store(f"sqlite:{other}/locks.db", OpenOptions())) as there:
        take(there, name="x", ttl=60)
        way = tmp_path / "way" / "on.db"
        way.parent.mkdir(mode=0o700)
        way.symlink_to(path)
        if turned == "a link on the way":
            link.unlink()
            link.symlink_to(way)
        store = open_store(f"sqlite:{link}", OpenOptions())
        one, fence = take(store, name="x", ttl=60)

        if turned == "the folder of the link":
            link.parent.rename(tmp_path / "before")
            link.parent.mkdir(mode=0o700)
        last = way if turned == "a link on the way" else link
        (last.parent / "next").symlink_to(other / "locks.db")
        (last.parent / "next").rename(last)

        assert isinstance(store.acquire(claim(name="x", wait=False), True, 2.0), Busy)
        assert store.renew([(one, fence)], 2.0)[0].why == "files"
        remove(other / "locks.db", SUFFIXES)
        assert isinstance(store.acquire(claim(name="x", wait=False), True, 2.0), Granted)
        store.close()


def test_a_link_of_a_folder_may_lead_to_the_store_by_another_way(process, tmp_path, path, folder, link):
    """The folder in which the database is named is that of the database at first, and another one later."""
    link.rename(link.with_name(path.name))
    (tmp_path / "current").symlink_to(folder)
    path.touch(mode=0o600)
    with closing(open_store(f"sqlite:{tmp_path}/current/{path.name}", OpenOptions())) as store:
        other = process()
        one, fence = take(store, name="mine", ttl=60)
        (tmp_path / "next").symlink_to(link.parent)
        (tmp_path / "next").rename(tmp_path / "current")
        assert store.renew([(one, fence)], 2.0)[0].state == "HELD"
        remove(path, SUFFIXES)

        meet(store, other, path)


def test_where_the_store_cannot_be_made_anew_the_holder_is_told_all_the_same(opened, path, folder):
    store = opened()
    one, fence = take(store, name="x", ttl=60, process_bound=True)
    shutil.rmtree(folder)
    folder.write_text("something else")

    assert store.renew([(one, fence)], 2.0)[0].why == "files"
    with pytest.raises(Refused, match=str(path)):
        store.acquire(claim(name="x"), True, 2.0)
    folder.unlink()
    take(store, name="x")


def test_a_groups_folder_that_is_gone_is_not_replaced_by_a_private_one(opened, folder):
    folder.chmod(0o2770)
    store = opened()
    take(store, name="x")
    shutil.rmtree(folder)
    with pytest.raises(Refused, match="which a group shared"):
        store.acquire(claim(name="y"), True, 2.0)
    assert not folder.exists()


def test_a_claim_waits_on_when_a_shared_folder_comes_back(folder, opened):
    folder.chmod(0o2770)  # a folder that a group shares is not made anew
    store = opened()
    one, _ = take(store, name="x")
    two = claim(name="x")
    assert isinstance(store.acquire(two, True, 2.0), Queued)
    folder.rename(folder.with_name("away"))
    with pytest.raises(Refused, match="which a group shared"):
        store.acquire(two, False, 2.0)
    folder.with_name("away").rename(folder)
    assert store.release(one, 2.0) == RELEASED
    assert isinstance(store.acquire(two, False, 2.0), Granted), "its place was not kept"


def test_what_is_left_of_a_store_whose_database_is_gone_is_cleared_away(process, opened, path):
    holder = process()
    holder("hold('x')")
    holder.child.kill()
    remove(path, [""])
    assert Path(f"{path}-wal").exists()
    take(opened(), name="x")


def test_many_calls_at_once_on_files_that_cannot_be_made_anew_do_not_wait_for_one_another(
    opened, process, path
):
    process()  # makes no call, so it leaves the damaged files to nobody
    store = opened()
    path.unlink()

    def refused(at):
        began = time.monotonic()
        with pytest.raises(Refused, match="other processes have it open"):
            store.acquire(claim(name=f"x{at}"), True, 0.5)
        return time.monotonic() - began

    with ThreadPoolExecutor(60) as threads:
        assert max(threads.map(refused, range(60))) < 10.0


def test_the_check_and_every_newcomer_say_what_happened(opened, process, path, caplog):
    store = opened()
    take(store, name="x", ttl=60)
    assert {found.check: found.severity for found in store.check(2.0)}["files"] == "ok"
    remove(path, ["-shm"])
    (told,) = [found for found in store.check(2.0) if found.check == "files"]
    assert told.severity == "warning"
    assert "locks.db-shm was removed" in told.message
    assert "locks.db-shm was removed" in caplog.text
    line = "[each.message for each in store.check(2.0) if each.check == 'files']"
    assert process()(line) == [told.message]


def test_an_error_that_comes_of_removed_files_says_nothing_of_the_request(opened, path):
    store = opened()
    take(store, name="x")
    link = store._opened.calls
    remove(path, SUFFIXES)
    with pytest.raises(Exception, match="were removed or replaced") as caught:
        link.read("SELECT no_such_function()", (), time.monotonic() + 1.0)
    assert type(caught.value).__name__ == "Unknown"


# -- forks ---------------------------------------------------------------------------------------------------


def test_the_store_of_a_forked_child_stands_when_its_parent_has_closed_its_own(process, url, path):
    """SQLite mistakes an inherited lock for the child's own: the parent's close removed log and index."""

    def parent(told):
        store = open_store(url, OpenOptions())
        take(store, name="warm")

        def child(heard):
            mine = open_store(url, OpenOptions())
            one, fence = take(mine, name="x", ttl=60)
            heard.tell("held")
            while heard.hear() != "end":
                heard.tell(mine.renew([(one, fence)], 2.0)[0].state)

        forked = Child(child)
        assert forked.hear() == "held"
        store.close()
        told.tell("closed")
        while (line := told.hear()) != "end":
            forked.tell(line)
            told.tell(forked.hear())
        forked.tell("end")
        forked.close()

    family = Child(parent)
    assert family.hear() == "closed"
    assert Path(f"{path}-wal").exists()
    newcomer = process()
    assert newcomer("attempt('x')") == "Busy"
    family.tell("beat")
    assert family.hear() == "HELD"
    assert newcomer("attempt('x')") == "Busy"
    family.tell("end")
    family.close()


def test_a_fork_loses_nothing_in_its_parent(opened, path):
    stores = [opened(), opened()]
    one, fence = take(stores[0], name="x", ttl=60)
    for _ in range(5):
        child = Child(lambda _: "done")
        assert child.hear() == "done"
        child.close()
        for store in stores:
            assert isinstance(store.acquire(claim(name="x", wait=False), True, 2.0), Busy)
        assert stores[0].renew([(one, fence)], 2.0)[0].state == "HELD"
    assert stores[0].release(one, 2.0) == RELEASED
    assert {found.check: found.severity for found in stores[1].check(2.0)}["files"] == "ok"


def test_forks_beside_calls_and_others_that_come_and_go_lose_nothing(opened, path, caplog):
    """The last of all to close removes the log, so a process may find another one after its fork."""
    store = opened()
    one, fence = take(store, name="held", ttl=60)

    def visit(_):
        while True:
            with closing(open_store(f"sqlite:{path}", OpenOptions())) as guest:
                take(guest, name=f"n{os.getpid()}")

    guest = Child(visit)
    over = threading.Event()
    lost = []

    def call():
        while not over.is_set():
            mine, _ = take(store, name="called", ttl=60)
            lost.append((store.renew([(one, fence)], 2.0)[0].state, store.release(mine, 2.0)))

    caller = threading.Thread(target=call)
    caller.start()
    try:
        for _ in range(40):
            child = Child(lambda _: "done")
            assert child.hear() == "done"
            child.close()
    finally:
        over.set()
        caller.join()
        guest.kill()
    assert set(lost) == {("HELD", RELEASED)}
    assert not caplog.messages


def test_a_fork_whose_parent_cannot_open_its_files_at_once_takes_none_of_its_child_for_its_own(
    opened, path, monkeypatch, caplog
):
    store = opened()
    one, fence = take(store, name="x", ttl=60)
    # The file stays busy for longer than the parent tries: the next call opens it.
    monkeypatch.setattr(Connection, "resume", lambda self: None)

    def visit(heard):
        with closing(open_store(f"sqlite:{path}", OpenOptions())) as guest:
            take(guest, name="y")
            heard.tell("inside")
            heard.hear()
        heard.tell("gone")

    child = Child(visit)
    assert child.hear() == "inside"
    assert store._store.whole()
    child.tell("leave")
    assert child.hear() == "gone"  # the last to close: log and index are removed
    child.close()

    assert store.renew([(one, fence)], 2.0)[0].state == "HELD"
    assert store.renew([(one, fence)], 2.0)[0].state == "HELD"
    assert store.release(one, 2.0) == RELEASED
    assert not caplog.messages


def test_a_store_that_is_opened_before_its_process_is_back_from_a_fork_leaves_what_others_hold(
    opened, path, monkeypatch, caplog
):
    """The process's log went when it closed its connections for the fork; a new one is no damage."""
    opened()
    monkeypatch.setattr(Connection, "resume", lambda self: None)

    def visit(heard):
        for number in range(4):  # or the next log may have the number of the last one
            path.with_name(f"other-{number}").touch()
        with closing(open_store(f"sqlite:{path}", OpenOptions())) as guest:
            take(guest, name="y", ttl=60)
            heard.tell("inside")
            heard.hear()

    child = Child(visit)
    assert child.hear() == "inside"
    second = opened()

    assert isinstance(second.acquire(claim(name="y", wait=False), True, 2.0), Busy)
    assert not caplog.messages
    child.tell("leave")
    child.close()


def test_a_fork_finds_out_about_files_that_were_removed_before_it(opened, path):
    store = opened()
    one, fence = take(store, name="x", ttl=60)
    remove(path, SUFFIXES)
    child = Child(lambda _: "done")
    assert child.hear() == "done"
    child.close()
    assert store.renew([(one, fence)], 2.0)[0].why == "files"
    take(store, name="x")


# -- the lock file -------------------------------------------------------------------------------------------


def locked_by_others(path):
    """Whether anybody but this descriptor has the lock."""
    with Path(f"{path}-lock").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_a_process_keeps_its_lock_from_opening_to_closing_and_across_forks(opened, path):
    store = opened()
    assert locked_by_others(path)

    def stay(heard):
        heard.tell("forked")
        heard.hear()

    child = Child(stay)
    assert child.hear() == "forked"
    assert locked_by_others(path)
    store.close()
    assert not locked_by_others(path), "the child has closed its copy"
    child.tell("end")
    child.close()


def test_the_lock_of_a_parent_outlives_its_children(opened, path):
    opened()
    for _ in range(3):
        child = Child(lambda _: "done")
        assert child.hear() == "done"
        child.close()
        assert locked_by_others(path)


class ForkingHandler(Bomb):
    """A signal handler that forks at the n-th place; ``inherited``: its child has the database open."""

    def __init__(self, at, path):
        super().__init__(at)
        self.path = path
        self.inherited = False

    def strike(self):
        child = os.fork()
        if child == 0:
            files = [self.path, f"{self.path}-wal", f"{self.path}-shm"]
            os._exit(any(each.exists() and each.resolve() in map(Path, files) for each in _descriptors()))
        self.inherited = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0


def _descriptors():
    return list(Path("/proc/self/fd").iterdir())


CALLS = {
    "opening": lambda opened, _: opened().close(),
    "inspect": lambda _, store: store.inspect("a", 5.0),
    "busy": lambda _, store: store.acquire(claim(wait=False), True, 5.0),
    "release": lambda _, store: store.release(take(store, "b")[0], 5.0),
}


INSIDE = (Connection.__init__, Connection._perform, Connection._wake, Connection._connect, connection.rows_of)


@pytest.mark.parametrize("call", CALLS)
def test_a_signal_handler_that_forks_inside_a_call_gives_its_child_no_connection(opened, path, call):
    """SQLite would take the parent's locks for the child's, and the first to close would remove the log."""
    store = opened()
    take(store)
    with ForkingHandler(10**6, path) as all_places:
        CALLS[call](opened, store)
    places = sorted(place for function in INSIDE for place in all_places.within(function))
    for at in places:
        with ForkingHandler(at, path) as handler:
            CALLS[call](opened, store)
        assert handler.where
        assert not handler.inherited, handler.where
    assert places


def test_a_newcomer_judges_nothing_while_another_process_is_between_its_connections(process, opened, path):
    """After a fork a holder opens the database: SQLite locks it, without a log yet, as if one was removed."""
    opened().close()

    def begin(heard):
        presence = enter(prepare(path, "NORMAL"))
        presence.share()
        with path.open("r+b") as database:
            fcntl.lockf(database, fcntl.LOCK_SH, 510, 0x40000002)
            heard.tell("locked")
            heard.hear()
        heard.tell("unlocked")
        heard.hear()

    slow = Child(begin)
    assert slow.hear() == "locked"
    before = path.stat().st_ino
    with pytest.raises(Refused, match=rf"open: pid {slow.pid}\b") as caught:
        open_store(f"sqlite:{path}", OpenOptions(budget=0.1))
    assert caught.value.busy
    assert not Path(f"{path}-wal").exists()
    slow.tell("go on")
    assert slow.hear() == "unlocked"
    take(opened(), name="x")  # without a connection of anybody, the log is missing rightly
    assert path.stat().st_ino == before
    slow.tell("end")
    slow.close()


@pytest.mark.parametrize("budget", [0.1, 1.0])
def test_an_opening_ends_with_its_budget_while_another_process_is_alone_with_the_files(opened, path, budget):
    opened().close()
    presence = enter(prepare(path, "NORMAL"))
    assert presence.alone
    began = time.monotonic()
    with pytest.raises(Refused, match="busy") as caught:
        open_store(f"sqlite:{path}", OpenOptions(budget=budget))
    assert caught.value.busy
    assert time.monotonic() - began < budget + 30.0
    presence.close()
    opened()


def test_a_lock_file_that_is_removed_loses_what_was_held_at_the_next_beat(process, opened, path):
    holder = process()
    holder("hold('x', ttl=60)")
    Path(f"{path}-lock").unlink()
    with pytest.raises(Refused, match=rf"\(pid {holder.child.pid}\) \(end that process"):
        open_store(f"sqlite:{path}", OpenOptions(budget=0.1))

    assert holder("beat('x')") == ["LOST", "files"]

    take(opened(), name="x")
    assert holder("attempt('x')") == "Busy"


def adopt(path):
    return adopt_store(f"sqlite:{path}", OpenOptions())


def test_a_store_whose_lock_file_is_gone_is_taken_in_by_command(opened, path):
    store = opened()
    one, _ = take(store, name="x", ttl=600, pulseless=True)
    store.put_record("gpu", {"quarantined": True}, 0, 2.0)
    store.close()
    Path(f"{path}-lock").unlink()
    with pytest.raises(
        Refused,
        match=f"cannot use {path}: the lock file beside it is not its own, which was {path}-lock and is gone",
    ) as caught:
        opened()
    assert not caught.value.retry

    assert adopt(path) == str(path)

    again = opened()
    assert isinstance(again.acquire(claim(name="x", wait=False), True, 2.0), Busy)
    assert again.record("gpu", 2.0).value == {"quarantined": True}
    assert again.release(one, 2.0) == RELEASED


def test_a_new_lock_file_that_has_the_number_of_the_lost_one_is_not_taken_for_it(opened, path):
    opened().close()
    lock = Path(f"{path}-lock")
    with lock.open("r+") as file:  # as if it had been made anew
        file.write("0" * 24)

    assert adopt(path) == str(path)

    opened()


def test_a_folder_that_was_renamed_needs_no_command(opened, path):
    opened().close()
    path.parent.rename(path.parent.with_name("elsewhere"))
    with closing(
        open_store(f"sqlite:{path.parent.with_name('elsewhere')}/{path.name}", OpenOptions())
    ) as store:
        take(store, name="x")
        assert store._opened.anew() == (0.0, "")


@pytest.fixture(params=["another folder", "the same folder"])
def second(request, path, tmp_path, opened):
    """A second name of the database: a hard link."""
    opened().close()
    other = (
        tmp_path / "other" / path.name if request.param == "another folder" else path.with_name("second.db")
    )
    other.parent.mkdir(mode=0o700, exist_ok=True)
    other.hardlink_to(path)
    return other


@pytest.mark.parametrize("made", ["before", "just now"])
def test_a_second_name_of_a_database_in_use_is_refused(process, second, path, made):
    """Also of one that its first process has just made, so that its tables might be in its log alone."""
    if made == "just now":
        remove(path, [""])
    holder = process()
    holder("hold('x', ttl=60)")
    if made == "just now":
        second.unlink()
        second.hardlink_to(path)
    for open_it in (lambda: open_store(f"sqlite:{second}", OpenOptions()), lambda: adopt(second)):
        with pytest.raises(Refused, match=rf"pid {holder.child.pid}\b"):
            open_it()
        assert not Path(f"{second}-wal").exists()
    assert holder("beat('x')") == ["HELD", ""]


def test_a_second_name_is_refused_while_a_process_has_the_lock_of_the_first_and_no_connection(second, path):
    """As in the middle of a fork."""
    presence = enter(prepare(path, "NORMAL"))
    for open_it in (lambda: open_store(f"sqlite:{second}", OpenOptions()), lambda: adopt(second)):
        with pytest.raises(Refused, match="the lock file beside it"):
            open_it()
    presence.close()
    adopt(second)


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside a process that forks"])
def test_of_a_process_that_adopts_a_database_and_one_that_opens_it_meanwhile_one_uses_it(
    second, path, monkeypatch, beside
):
    """The adopting process sees neither lock file nor connection of the other: they would have two logs."""
    with closing(sqlite3.connect(path)) as database:
        database.execute(
            "UPDATE meta SET value = replace(value, ?, '/nowhere') WHERE key = 'lock'", (str(path.parent),)
        )
        database.commit()
    presence = enter(prepare(path, "NORMAL")) if beside else None
    if presence:
        presence.share()
    script = f"""
import sys
from lockkit.store.spi import OpenOptions
from lockkit.testing.claims import take
from lockkit_sqlite.backend import open_store
store = open_store("sqlite:{path}", OpenOptions())
one, fence = take(store, name="x", ttl=60)
print("held", flush=True)
sys.stdin.readline()
print(store.renew([(one, fence)], 2.0)[0].state)
"""
    others = []
    read = connection.Connection.read

    def read_before_another_opens_it(self, sql, params, end):
        found = read(self, sql, params, end)
        if sql == "PRAGMA journal_mode=DELETE":
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            others.append(subprocess.Popen([sys.executable, "-c", script], **pipes, text=True))
            assert others[0].stdout.readline() == "held\n"
        return found

    monkeypatch.setattr(connection.Connection, "read", read_before_another_opens_it)
    try:
        with pytest.raises(Refused, match="other processes have it open without the lock file beside it"):
            adopt(second)
    finally:
        said, _ = others[0].communicate("\n", timeout=30)
    assert said == "HELD\n"
    if presence:
        presence.close()


def test_a_process_that_gives_a_database_its_log_just_after_it_was_adopted_under_another_name_does_not_use_it(
    second, path, monkeypatch
):
    read = connection.Connection.read
    with closing(sqlite3.connect(second, isolation_level=None)) as adopting:
        adopting.execute("PRAGMA journal_mode=DELETE")

        def read_after_adopting(self, sql, params, end):
            if sql == "PRAGMA journal_mode=WAL":
                adopting.execute("UPDATE meta SET value = 'another' WHERE key = 'lock'")
                adopting.execute("PRAGMA journal_mode=WAL")
            return read(self, sql, params, end)

        monkeypatch.setattr(connection.Connection, "read", read_after_adopting)
        with pytest.raises(Refused, match="the lock file beside it"):
            open_store(f"sqlite:{path}", OpenOptions(budget=2.0))


def test_a_process_does_not_go_on_with_a_database_that_was_adopted_while_it_was_forked(second, opened):
    """A fork closes all connections, and the adopter cannot see the lock file: they would have two logs."""
    store = opened()
    take(store, name="x", ttl=60)
    connection.before_fork()
    with closing(sqlite3.connect(second, isolation_level=None)) as adopting:
        adopting.execute("PRAGMA journal_mode=DELETE")
        adopting.execute("UPDATE meta SET value = 'another' WHERE key = 'lock'")
        adopting.execute("PRAGMA journal_mode=WAL")
        connection.after_fork_in_parent()
        with pytest.raises(Refused, match="adopted under another name"):
            store.acquire(claim(name="y", wait=False), True, 0.3)
        assert adopting.execute("SELECT count(*) FROM claims").fetchall() == [(1,)]


@pytest.mark.parametrize("first", ["the process that forked", "a newcomer"])
def test_a_database_whose_log_a_stranger_gave_up_while_all_were_forked_gets_it_back(
    opened, process, path, first
):
    store = opened()
    one, fence = take(store, name="x", ttl=60)
    connection.before_fork()
    with closing(sqlite3.connect(path)) as stranger:
        assert stranger.execute("PRAGMA journal_mode=DELETE").fetchall() == [("delete",)]
    if first == "a newcomer":
        other = process()
        assert other("attempt('x')") == "Busy"
        connection.after_fork_in_parent()
    else:
        connection.after_fork_in_parent()
        other = process()
    assert store.renew([(one, fence)], 2.0)[0].state == "HELD"
    assert other("attempt('x')") == "Busy"
    assert store.release(one, 2.0) == RELEASED
    assert isinstance(other("attempt('x')"), int)
    assert store._opened.anew() == (0.0, "")


def test_of_two_names_one_is_used_at_a_time(second, opened, path):
    with closing(open_store(f"sqlite:{second}", OpenOptions())) as store:  # nobody uses the other
        take(store, name="x", ttl=60)
        with pytest.raises(Refused, match="the lock file beside it"):
            open_store(f"sqlite:{path}", OpenOptions(budget=0.1))
        store.close()
    assert isinstance(opened().acquire(claim(name="x", wait=False), True, 2.0), Busy)


def test_a_second_name_is_refused_while_a_log_lies_beside_the_first(process, second, path):
    """The log has what the database lacks: the last claims and fences of a process that was killed."""
    holder = process()
    holder("hold('x', ttl=60)")
    holder.child.kill()
    with pytest.raises(Refused, match=f"{path}-wal"):
        open_store(f"sqlite:{second}", OpenOptions())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
@pytest.mark.parametrize("first", ["host", "container"])
def test_a_database_that_is_mounted_alone_into_a_container_is_refused_there_or_outside(
    process, opened, path, tmp_path, first
):
    opened().close()
    inside = tmp_path / "container" / "locks.db"
    inside.parent.mkdir(mode=0o700)
    inside.touch(mode=0o600)
    script = f"""
import sys
from lockkit.store.spi import OpenOptions, Refused
from lockkit.testing.claims import take
from lockkit_sqlite.backend import adopt_store, open_store
try:
    if {first == "container"}:
        adopt_store("sqlite:{inside}", OpenOptions())
    take(open_store("sqlite:{inside}", OpenOptions()), name="x", ttl=60)
    print("held", flush=True)
    sys.stdin.readline()
except Refused as refusal:
    print(refusal, flush=True)
"""
    mounted = f'mount --bind {path} {inside} && exec {sys.executable} -c "$0"'
    holder = process() if first == "host" else None
    if holder:
        holder("hold('x', ttl=60)")
    container = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", mounted, script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    said = container.stdout.readline()
    if not said:
        pytest.skip("this user may not mount a file system")
    if holder:
        assert "other processes have it open without the lock file beside it" in said
        assert holder("beat('x')") == ["HELD", ""]
    else:
        assert said == "held\n"
        with pytest.raises(Refused, match="the lock file beside it"):
            opened()
    container.communicate("")


def to_layout_1(path):
    with closing(sqlite3.connect(path)) as database:
        database.execute("DELETE FROM meta WHERE key = 'lock'")
        layout = '{"v":1,"min_reader":1,"host":"box","lockkit":"1.0"}'
        database.execute("UPDATE meta SET value = ? WHERE key = 'layout'", (layout,))
        database.commit()
    Path(f"{path}-lock").unlink()


def test_a_store_of_the_version_before_is_taken_over_with_all_that_is_in_it_once_nobody_uses_it(opened, path):
    store = opened()
    one, _ = take(store, name="x", ttl=600, pulseless=True)
    store.close()
    to_layout_1(path)

    def old_version(heard):
        with closing(sqlite3.connect(path)) as database:
            database.execute("SELECT * FROM meta").fetchall()
            heard.tell("inside")
            heard.hear()

    old = Child(old_version)
    assert old.hear() == "inside"
    with pytest.raises(Refused, match=rf"pid {old.pid}\b") as caught:
        opened()
    assert not caught.value.busy
    old.tell("leave")
    old.close()

    store = opened()
    assert isinstance(store.acquire(claim(name="x", wait=False), True, 2.0), Busy)
    assert store.release(one, 2.0) == RELEASED
    with closing(sqlite3.connect(path)) as database:
        ((layout,),) = database.execute("SELECT value FROM meta WHERE key = 'layout'").fetchall()
    assert '"min_reader":2' in layout


# -- FIFOs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["beat", "acquire"])
def test_a_removed_folder_of_fifos_is_restored(opened, path, call):
    store = opened()
    one, fence = take(store, name="x", ttl=60, process_bound=True)
    pulses = Path(f"{path}.pulses")
    (pulse,) = pulses.iterdir()
    shutil.rmtree(pulses)
    time.sleep(LOOK)  # the next call looks at it then

    if call == "beat":
        assert store.renew([(one, fence)], 2.0)[0].state == "HELD"
    else:
        take(store, name="y")

    assert stat.S_IMODE(pulses.stat().st_mode) == 0o700
    assert probe(str(pulses), pulse.name) == ALIVE
    assert store.inspect("x", 2.0).claims[0].alive


def test_a_folder_of_fifos_that_everybody_may_write_to_is_refused(opened, path):
    Path(f"{path}.pulses").mkdir()
    Path(f"{path}.pulses").chmod(0o777)
    with pytest.raises(Refused, match=f"everybody may write to {path}.pulses"):
        opened()


def test_the_files_and_folders_of_a_store_are_for_their_user_alone_with_a_umask_of_0(tmp_path):
    old = os.umask(0)
    try:
        store = open_store(f"sqlite:{tmp_path}/a/b/locks.db", OpenOptions())
        take(store, name="x")
    finally:
        os.umask(old)
    made = list(tmp_path.rglob("*"))
    assert len(made) == 8
    assert {stat.S_IMODE(each.stat().st_mode) & 0o077 for each in made} == {0}
    store.close()


# -- what is looked at, and when -----------------------------------------------------------------------------


def test_a_call_looks_at_the_database_alone_just_after_a_look_at_all_files(opened, path, monkeypatch):
    """Acquire and release pay one stat(2) each for all of this."""
    monkeypatch.setattr("lockkit_sqlite.store._LOOK", 60.0)
    store = opened()
    one, _ = take(store, name="x")
    store.release(one, 2.0)
    looked = []
    monkeypatch.setattr("lockkit_sqlite.store.look", lambda *given: looked.append(given))

    one, _ = take(store, name="x")
    store.release(one, 2.0)

    assert not looked


def test_a_lease_is_lost_at_once_when_another_call_of_its_client_notices_the_damage(url, path):
    """The next heartbeat would come after 20 s, and the store is made anew, and the lock granted, before."""
    with lockkit.connect(url) as client:
        lease = client.lock("x", ttl=60).acquire(timeout=30)
        path.unlink()
        client.inspect("another")
        until(lambda: not lease.valid(), "the heartbeat finds out", 15)
        with contextlib.suppress(LeaseLost):
            lease.release()


def test_a_second_name_in_one_process_drops_none_of_its_locks(process, opened, path):
    """Opening and closing a database to ask whether it is in use would drop SQLite's locks for it."""
    other = process()  # first: a fork opens the connections anew
    store = opened()
    one, fence = take(store, name="x", ttl=60)
    second = path.parent.parent / "second" / "other.db"
    second.parent.mkdir(mode=0o700)
    os.link(path, second)
    with pytest.raises(Refused, match="the lock file beside it"):
        open_store(f"sqlite:{second}", OpenOptions())

    other("store.close()")  # the last connection of all would remove the log

    assert Path(f"{path}-wal").exists()
    assert store.renew([(one, fence)], 2.0)[0].state == "HELD"


def test_a_file_with_the_number_of_a_removed_database_that_a_fork_has_closed_is_not_taken_for_it(
    opened, path
):
    """The system gives the number of a file that nobody has open any more to the next file."""
    store = opened()
    second = path.parent.parent / "second" / "other.db"
    second.parent.mkdir(mode=0o700)
    path.rename(second)
    Child(lambda _: None).close()
    os.truncate(second, 0)

    other = open_store(f"sqlite:{second}", OpenOptions())

    with closing(other):
        take(other, name="x")
    soon(take, store, name="x")


@pytest.mark.parametrize(
    "home",
    [
        '{"name": "a", "inode": Infinity, "path": "/x-lock"}',
        '{"name": "a", "inode": 1, "path": "/x\\u0000-lock"}',
        '{"name": "a", "inode": 1, "path": "/\\ud800-lock"}',
        '{"name": "a", "inode": 1, "path": "/dev/watchdog"}',
        "[" * 100_000,
        "1",
    ],
    ids=["no number", "NUL", "surrogate", "device", "deep", "no object"],
)
def test_a_malformed_note_of_the_lock_file_is_refused_and_leads_nowhere(path, opened, home, monkeypatch):
    opened().close()
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE meta SET value = ? WHERE key = 'lock'", (home,))
    monkeypatch.setattr("lockkit_sqlite.presence.LockFile.reach", None)
    with pytest.raises(Refused, match="the lock file beside it"):
        opened()


def test_the_error_names_the_process_that_stands_still_while_it_is_alone_with_the_files(process, url, path):
    """The pid is what a user needs to end or continue it."""
    other = process()
    other("store.close()")
    alone = os.open(f"{path}-lock", os.O_RDONLY)
    try:
        fcntl.flock(alone, fcntl.LOCK_EX)
        child = os.fork()
        if not child:
            signal.pause()
        try:
            with pytest.raises(Refused, match=rf"kept it locked \(pid .*\b{child}\b"):
                open_store(url, OpenOptions(budget=0.1))
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    finally:
        os.close(alone)


def test_the_lock_file_is_never_older_than_the_database_for_a_cleaner_of_old_files(opened, path):
    """A store without its lock file is refused until somebody takes it in by command."""
    lock = Path(f"{path}-lock")
    opened().close()
    os.utime(lock, (0, 0))
    store = opened()
    at_opening = lock.stat().st_mtime
    os.utime(lock, (0, 0))
    store.close()
    assert at_opening > 0
    assert lock.stat().st_mtime >= path.stat().st_mtime


def test_a_removed_database_is_noticed_by_the_next_call(opened, path, monkeypatch):
    monkeypatch.setattr("lockkit_sqlite.store._LOOK", 60.0)
    store = opened()
    one, _ = take(store, name="x", ttl=60)
    path.unlink()
    assert store.release(one, 2.0) == ABSENT


# -- signals -------------------------------------------------------------------------------------------------


def descriptors(folder):
    """The open descriptors of this process in a folder."""
    found = set()
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if str(each.readlink()).startswith(str(folder)):
                found.add(int(each.name))
    return found


@pytest.mark.parametrize("then, most", [(0, 250), (2, 100)], ids=["once", "and again"])
def test_a_ctrl_c_at_any_place_of_opening_and_closing_loses_no_descriptor(tmp_path, then, most, monkeypatch):
    left, ignored = {}, []
    # Python ignores what is raised in a finalizer, but tells.
    monkeypatch.setattr(sys, "unraisablehook", lambda told: ignored.append(type(told.exc_value)))

    def strike(at):
        folder = tmp_path / str(at)
        folder.mkdir(mode=0o700)
        bomb, store = Bomb(at, then), None
        try:
            with bomb:
                store = open_store(f"sqlite:{folder}/locks.db", OpenOptions())
                store.extras.pulse()
                store.close()
        except CtrlC:
            if store is not None:
                store.close()
        return bomb, folder

    def strikes():
        whole, _ = strike(1 << 30)
        for at in whole.places(most, Random(1)):
            bomb, folder = strike(at)
            if descriptors(folder):  # in what a traceback or a cycle of objects keeps
                gc.collect()
            if descriptors(folder):
                left[bomb.where, bomb.again] = descriptors(folder)

    # CPython 3.11 may handle, until the thread ends, an exception whose handler another one struck.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(strikes).result()
    assert OPENING.acquire(timeout=0), "that thread still has it"
    OPENING.release()
    assert left == {}
    assert set(ignored) <= {
        CtrlC,
        ResourceWarning,
    }  # since Python 3.13 of a connection that its finalizer closes


def strike():
    raise CtrlC


@pytest.mark.parametrize("function", ["_lock", "inode", "enter", "_attempt", "_accept_or_create"])
def test_a_ctrl_c_while_the_files_are_opened_leaves_them_to_other_processes_while_its_traceback_lives(
    url, path, function
):
    open_store(url, OpenOptions()).close()
    for at in itertools.count(1):
        with Handler(at, strike, function) as handler:
            try:
                open_store(url, OpenOptions()).close()
            except CtrlC as struck:
                kept = struck.__traceback__  # as a console keeps that of the last exception
        if not handler.where:
            break
        with Path(f"{path}-lock").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pytest.fail(f"{at}: the lock on the store is kept by {kept}")
    assert at > 1


@pytest.mark.parametrize("function", ["leave", "close", "retire"])
def test_a_ctrl_c_while_a_store_is_closed_leaves_the_next_one_of_its_process_with_a_pulse(
    url, path, function
):
    for at in itertools.count(1):
        store = open_store(url, OpenOptions())
        one, _ = take(store, name="x")
        store.release(one, 2.0)
        with Handler(at, strike, function) as handler, contextlib.suppress(CtrlC):
            store.close()
        if not handler.where:
            break
        with closing(open_store(url, OpenOptions())) as following:
            one, _ = take(following, name="x")
            assert probe(f"{path}.pulses", following._opened.pulses.name()) == ALIVE
            assert following.release(one, 2.0) == RELEASED
        store.close()
    assert at > 1


@pytest.mark.parametrize("function", ["took", "__init__", "enter", "anew"])
def test_a_ctrl_c_while_a_store_is_opened_keeps_neither_folder_nor_fifo_while_its_traceback_lives(
    url, path, folder, function
):
    kept = []
    for at in itertools.count(1):
        with Handler(at, strike, function, ".py") as handler:
            try:
                open_store(url, OpenOptions()).close()
            except CtrlC as struck:
                kept.append(struck.__traceback__)
        if not handler.where:
            break
        with closing(open_store(url, OpenOptions())) as following:
            following.extras.pulse()
        still = {str(Path(f"/proc/self/fd/{each}").readlink()) for each in descriptors(folder)}
        assert not [each for each in still if each == str(folder) or each.startswith(f"{path}.pulses")]
    assert kept


class Alarm(Bomb):
    """A signal handler that raises an OSError, which the system never made."""

    def __init__(self, at, error):
        super().__init__(at)
        self._rings = error

    def _place(self, frame):
        try:
            super()._place(frame)
        except CtrlC:
            raise self._rings("rings") from None


@pytest.mark.parametrize("error", [TimeoutError, FileNotFoundError, FileExistsError, BlockingIOError])
@pytest.mark.parametrize("during", ["opening", "calls"])
def test_an_oserror_that_a_signal_handler_raises_comes_out_of_what_it_interrupted(
    opened, url, monkeypatch, error, during
):
    ignored, swallowed = [], {}
    # Python ignores what is raised in a finalizer, but tells.
    monkeypatch.setattr(sys, "unraisablehook", lambda told: ignored.append(told.exc_value))
    store = opened()
    names = itertools.count()

    def opening():
        open_store(url, OpenOptions()).close()

    def calls():
        store._opened._looks_at = 0.0  # so that the files are looked at
        name = str(next(names))
        one, fence = take(store, name=name)
        two = claim(name=name)
        blockers = store.acquire(two, True, 2.0).blockers
        store.watch(name, [*blockers, f"1.{'0' * 24}"], lambda: None, two).close()
        store.renew([(one, fence)], 2.0)
        store.inspect(name, 2.0)
        store.release(one, 2.0)
        store.acquire(two, False, 2.0)
        store.release(two, 2.0)

    interrupted = {"opening": opening, "calls": calls}[during]
    interrupted()
    whole = Alarm(1 << 30, error)
    with whole:
        interrupted()
    for at in whole.places(300, Random(1)):
        ignored.clear()
        alarm = Alarm(at, error)
        try:
            with alarm:
                interrupted()
        except Exception as told:
            if type(told) is not error or told.errno is not None:
                swallowed[alarm.where] = repr(told)
        else:
            if alarm.where and not ignored:
                swallowed[alarm.where] = "nothing"
        for watch in [*LISTENER.watcher._waiters]:
            watch.close()  # once more: the caller's close() may have been cut short, which the engine repeats
    assert swallowed == {}


# -- cleaners of old files -----------------------------------------------------------------------------------

TMPFILES = shutil.which("systemd-tmpfiles")


def old(folder):
    """Make everything in it look unused for a hundred days; what cannot be set is the time of change."""
    ago = time.time() - 100 * 86400
    for each in [*folder.rglob("*"), folder]:
        os.utime(each, (ago, ago), follow_symlinks=False)


@pytest.mark.skipif(TMPFILES is None, reason="systemd-tmpfiles is not installed")
def test_a_cleaner_of_old_files_passes_over_a_store_that_is_open(opened, process, folder, path, tmp_path):
    """systemd-tmpfiles skips a folder below the cleaned one while a process holds a lock on it (flock)."""
    store = opened()
    one, fence = take(store, name="x", ttl=60, process_bound=True)
    idle = process()
    idle("attempt('warm')")
    rules = tmp_path / "clean.conf"
    rules.write_text(f"d {folder.parent} - - - am:1d\n")
    old(folder)

    subprocess.run([TMPFILES, "--clean", rules], check=True)

    assert {each.name for each in folder.iterdir()} == {
        *(f"locks.db{suffix}" for suffix in SUFFIXES),
        "locks.db-lock",
        "locks.db.pulses",
    }
    assert len(list(Path(f"{path}.pulses").iterdir())) == 2
    assert store.renew([(one, fence)], 2.0)[0].state == "HELD"
    store.close()
    idle.child.kill()
    old(folder)
    subprocess.run([TMPFILES, "--clean", rules], check=True)
    assert not path.exists(), "the rule that is tested does nothing"


def test_the_rule_that_is_shipped_for_tmpfiles_keeps_every_fallback_folder():
    rules = Path(__file__).parents[2] / "docs/ops/tmpfiles.d/lockkit.conf"
    lines = [line.split() for line in rules.read_text().splitlines() if line and not line.startswith("#")]
    assert [kind for kind, _ in lines] == ["x"]
    assert fnmatch.fnmatch(f"/var/tmp/lockkit-{os.getuid()}", lines[0][1])
    if TMPFILES is not None:
        checked = subprocess.run([TMPFILES, "--clean", rules], capture_output=True, text=True, check=True)
        assert not checked.stderr


def test_a_waiter_in_removed_files_queues_again_in_the_new_ones(path, url):
    def wait(parent):
        client = lockkit.connect(url)
        lock = client.lock("x", ttl=60)
        client.lock("warm").acquire().release()
        parent.tell("here")
        with lock.acquire(timeout=30) as lease:
            parent.tell(lease.fence)

    with lockkit.connect(url) as client:
        lease = client.lock("x", ttl=60).acquire()
        waiter = Child(wait)
        assert waiter.hear() == "here"
        while not client.inspect("x").waiters:
            time.sleep(0.005)
        remove(path, ("-wal", "-shm"))
        with pytest.raises(LeaseLost, match="files were removed or replaced"):
            lease.confirm()
        assert waiter.hear() > lease.fence
        waiter.close()
        lease.release()
