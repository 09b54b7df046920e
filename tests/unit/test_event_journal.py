"""The event journal: what it writes, and what a reader finds although files are torn, renamed or missing."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import resource
import stat
import subprocess
import sys
import threading
import tracemalloc

import pytest

import lockkit
from lockkit import hooks
from lockkit.config import config
from lockkit.drivers import delivery
from lockkit.errors import AcquireError
from lockkit.facts import Event
from lockkit.observe import appending, event_journal
from lockkit.observe.event_journal import EventJournal
from lockkit.observe.history import journals, read_history
from lockkit.testing.children import Child
from lockkit.values.identity import this_process


@pytest.fixture
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCKKIT_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(event_journal, "_PATIENCE", 60.0)  # a busy machine may take long to start a thread
    return tmp_path / "state"


def connect(**settings):
    return lockkit.connect("sqlite:", journal=True, **settings)


def events(state):
    return state / "journal" / "events.jsonl"


def test_nothing_is_written_unless_it_is_asked_for(state):
    with lockkit.connect("sqlite:") as client, client.lock("a").acquire():
        pass
    assert not events(state).exists()


def test_a_hold_is_read_back_with_all_that_an_audit_needs(state):
    with connect(namespace="prod") as client, client.semaphore("s", 3, permits=2).acquire() as lease:
        claim, fence = lease.claim_id, lease.fence
    history = read_history()

    (hold,) = history.holds
    assert (hold.name, hold.claim_id, hold.fence, hold.end) == ("s", claim, fence, "released")
    assert (hold.kind, hold.weight, hold.capacity) == ("semaphore", 2, 3)
    assert hold.owner.pid == os.getpid()
    assert hold.owner.boot_id
    assert hold.key.namespace == "prod"
    assert hold.began_boottime < hold.until_boottime
    assert hold.began <= hold.ended
    assert hold.ttl == lease.ttl
    assert not history.gaps


def without_ends(path):
    """Rewrite a journal as if the ends of holds had not been written, nor their numbers been given."""
    kept = [json.loads(row) for row in path.read_text().splitlines() if row and '"released"' not in row]
    for number, line in enumerate(kept):
        line["n"] = number
    path.write_text("".join(json.dumps(line) + "\n" for line in kept))


def test_a_hold_whose_end_is_missing_was_over_when_its_client_was_closed(state):
    with connect() as client, client.lock("a").acquire():
        pass
    without_ends(events(state))
    (hold,) = read_history().holds
    assert (hold.end, hold.ended) == ("untold", None)
    assert hold.began < hold.latest <= hold.began + 60.0


def test_a_hold_whose_end_is_missing_was_over_a_ttl_after_its_eviction(state):
    with connect() as client, connect() as operator:
        lease = client.lock("a", ttl=7, max_hold=3600).acquire()
        operator.evict("a", lease.claim_id, reason="test")
        client.driver().dispatcher.flush(10.0)
        operator.driver().dispatcher.flush(10.0)
        (hold,) = read_history().holds
        assert hold.ttl == 7.0
        assert hold.began + 7.0 <= hold.latest < hold.began + 3600.0


def test_the_latest_end_of_a_hold_is_its_max_hold_if_nothing_else_is_known(state):
    with connect() as client, client.lock("a", max_hold=3600).acquire():
        client.driver().dispatcher.flush(10.0)
        (hold,) = read_history().holds
        assert hold.latest == pytest.approx(hold.began + 3600.0)
        assert hold.end == ""


def test_an_eviction_from_another_host_is_kept_by_that_clock(tmp_path):
    path = tmp_path / "x.jsonl"
    evicted = row("two", 1, "evicted", "0123456789ab", 150.0, data={"ttl": 5.0})
    dropped = row("one", 2, "dropped", "0123456789ab", 120.0, data={"ttl": 60.0})
    path.write_text(row("one", 1, "acquired", "0123456789ab", 100.0) + evicted + dropped)
    (hold,) = read_history([path]).holds
    assert (hold.latest, hold.latest_elsewhere) == (180.0, 155.0)


def test_a_wait_in_vain_is_read_back_with_its_holder(state):
    with connect() as client, client.lock("a").acquire(), connect() as other, pytest.raises(AcquireError):
        other.lock("a").acquire(timeout=0)
    (wait,) = read_history().waits
    assert (wait.name, wait.outcome) == ("a", "busy")
    assert f"pid {os.getpid()}" in wait.holder


def test_only_its_owner_may_read_it(state):
    old = os.umask(0)
    try:
        with connect() as client, client.lock("a").acquire():
            pass
    finally:
        os.umask(old)
    assert stat.S_IMODE(events(state).stat().st_mode) == 0o600
    assert stat.S_IMODE(events(state).parent.stat().st_mode) == 0o700


def test_many_processes_write_whole_lines_into_files_that_are_renamed_meanwhile(state, monkeypatch):
    real = appending.append
    monkeypatch.setattr(
        "lockkit.observe.event_journal.append",
        lambda path, line, **options: real(path, line, **{**options, "rotate_at": 8_000, "keep": 500}),
    )

    def work(parent):
        with connect() as client:
            for number in range(30):
                with client.lock(f"n{os.getpid()}/{number}").acquire():
                    pass
        parent.tell("done")

    workers = [Child(work) for _ in range(3)]
    try:
        assert [worker.read(60.0) for worker in workers] == ["done"] * 3
    finally:
        for worker in workers:
            worker.close()
    history = read_history()
    assert len(appending.rotated(events(state))) > 3
    assert len(history.holds) == 90
    assert not history.gaps, history.gaps


def test_a_line_that_a_crash_cut_is_counted_and_costs_no_other_line(state):
    with connect() as client, client.lock("a").acquire():
        pass
    with events(state).open("a") as opened:
        opened.write('\n{"v": 1, "kind": "acq')
    with connect() as client, client.lock("b").acquire():
        pass
    history = read_history()
    assert [hold.name for hold in history.holds] == ["a", "b"]
    assert history.gaps.torn == 1


def test_a_line_that_is_written_only_in_part_is_an_error(tmp_path):
    path = tmp_path / "x.jsonl"

    def work(parent):
        resource.setrlimit(resource.RLIMIT_FSIZE, (30, 30))  # as a disk that is nearly full
        try:
            appending.append(path, json.dumps("x" * 100), rotate_at=1000)
        except OSError as error:
            parent.tell(error.errno)
        else:
            parent.tell(0)

    worker = Child(work)
    try:
        assert worker.read(30.0) == errno.ENOSPC
    finally:
        worker.close()
    appending.append(path, "{}", rotate_at=1000)
    assert appending.read_records(path) == ([{}], 1)


def test_a_line_that_is_missing_between_others_is_a_gap(state):
    with connect() as client, client.lock("a").acquire():
        pass
    kept = [line for line in events(state).read_text().splitlines() if '"released"' not in line]
    events(state).write_text("\n".join(kept))
    assert read_history().gaps.absent == 1


def test_a_hold_during_which_the_wall_clock_was_set_is_not_left_out(state):
    with connect() as client, client.lock("a").acquire():
        pass
    rows = [json.loads(row) for row in events(state).read_text().splitlines() if row]
    (began,) = (row for row in rows if row["kind"] == "acquired")
    since = began["at"] - 60.0
    began["at"] -= 172_800.0
    events(state).write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [hold.name for hold in read_history(since=since).holds] == ["a"]


def test_an_end_without_a_beginning_counts_only_where_it_was_asked_for(state):
    with connect() as client, client.lock("a").acquire():
        pass
    rows = [json.loads(row) for row in events(state).read_text().splitlines() if row]
    events(state).write_text("".join(json.dumps(row) + "\n" for row in rows if row["kind"] != "acquired"))
    assert read_history().unbegun == 1
    assert read_history(name="b").unbegun == 0
    assert read_history(since=rows[-1]["at"] + 1.0).unbegun == 0


def test_a_renamed_file_that_is_missing_between_others_is_a_gap(state):
    with connect() as client, client.lock("a").acquire():
        pass
    events(state).with_name("events.jsonl.2").write_text("")
    (missing,) = read_history().gaps.unreadable
    assert missing.startswith(f"{events(state)}.1: ")
    events(state).with_name("events.jsonl.1").write_text("")
    assert not read_history().gaps


def test_a_resize_is_read_back_if_there_was_a_claim(state):
    with connect() as client:
        client.resize("s", 4)
        with client.semaphore("s", 2).acquire():
            client.resize("s", 3)
    (resizes,) = read_history().resized.values()
    assert [each.capacity for each in resizes] == [3]


def test_lines_that_stand_in_two_files_count_once(state, tmp_path):
    with connect() as client, client.lock("a").acquire():
        pass
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(events(state).read_bytes())
    history = read_history([events(state), copy])
    assert len(history.holds) == 1
    assert not history.gaps


def test_lines_that_somebody_has_written_by_hand_are_counted(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(['{"v": 1}', "[]", '{"v": 99, "kind": "acquired"}', json.dumps("x")]))
    history = read_history([path, tmp_path / "absent.jsonl"])
    assert history.gaps.torn == 4
    assert len(history.gaps.unreadable) == 1


def test_a_row_with_absurd_contents_is_counted_and_costs_no_other_row(state):
    with connect() as client, client.lock("a").acquire():
        pass
    row = json.loads(events(state).read_text().splitlines()[1])
    with events(state).open("a") as opened:
        opened.write("[" * 100_000 + "\n")
        for at in ("1e308", "NaN", "-Infinity", "-5", "1" + "0" * 400):
            opened.write(json.dumps(row | {"writer": at, "at": 0}).replace('"at": 0', f'"at": {at}') + "\n")
    history = read_history()
    assert [hold.name for hold in history.holds] == ["a"]
    assert history.gaps.torn == 6


def test_a_fifo_in_place_of_a_journal_blocks_neither_reader_nor_writer(tmp_path):
    path = tmp_path / "x.jsonl"
    os.mkfifo(path)
    (unreadable,) = read_history([path]).gaps.unreadable
    assert "no regular file" in unreadable
    with pytest.raises(OSError, match="No such device"):
        appending.append(path, "{}", rotate_at=1000)


def test_the_journal_of_a_process_that_was_killed_is_a_gap(state):
    def work(parent):
        client = connect()
        lease = client.lock("a").acquire()
        client.driver().dispatcher.flush(10.0)
        parent.tell(lease.claim_id)
        parent.hear()

    worker = Child(work)
    try:
        claim, killed = worker.read(30.0), worker.pid
        assert not read_history().gaps, "it runs"
    finally:
        worker.kill()
    history = read_history()
    assert [owner.pid for owner in history.gaps.unended] == [killed]
    assert [(hold.claim_id, hold.end, hold.ended) for hold in history.holds] == [(claim, "unknown", None)]


def row(writer, number, kind, claim="", at=0.0, **more):
    about = {"store": "redis://box", "scope": "fleet", "namespace": "default", "host": writer, "pid": 1}
    told = {"v": 1, "writer": writer, "n": number, "kind": kind, "name": "a", "claim": claim, "at": at}
    return json.dumps(told | about | {"boot": f"boot of {writer}", "boottime": at} | more) + "\n"


def test_a_process_that_was_killed_long_ago_is_no_gap_once_another_one_has_had_its_lock(tmp_path):
    path = tmp_path / "x.jsonl"
    killed = row("one", 1, "queued", at=98.0) + row("one", 3, "acquired", "0123456789ab", 100.0)
    path.write_text(killed)
    assert read_history([path], since=1000.0).gaps.unended, "it may have held until now"
    after = [("acquired", {}), ("released", {"until": 201.0}), ("closed", {})]
    path.write_text(
        killed
        + "".join(
            row("two", n, kind, "ba9876543210", 200.0 + n, **more) for n, (kind, more) in enumerate(after)
        )
    )
    late = read_history([path], since=1000.0)
    assert not late.gaps, late.gaps
    assert not late.holds
    early = read_history([path], since=150.0)
    assert [owner.host for owner in early.gaps.unended] == ["one"]
    assert len(early.holds) == 2
    assert read_history([path], since=99.0).gaps.absent == 1


@pytest.mark.parametrize(
    "url, stores",
    [
        ("redis://localhost", 2),
        ("redis://127.0.0.1:6379/1", 2),
        ("etcd://[::1]:2379", 2),
        ("redis://localhost.example.org", 1),
        ("redis://box", 1),
    ],
)
def test_a_loopback_url_is_a_store_of_each_host(tmp_path, url, stores):
    path = tmp_path / "x.jsonl"
    path.write_text("".join(row(host, 1, "acquired", host, 1.0, store=url) for host in ("one", "two")))
    assert len({hold.key for hold in read_history([path]).holds}) == stores


def test_a_plugin_is_told_how_many_events_it_missed(monkeypatch):
    monkeypatch.setattr(delivery, "_QUEUE", 6)
    go, seen, over = threading.Event(), [], threading.Event()

    class Slow:
        @hooks.hookimpl
        def lockkit_event(self, event):
            go.wait(30.0)
            seen.append(event)
            if event.kind == "closed":
                over.set()

    client = lockkit.connect("memory:", plugins=[Slow()])
    for _ in range(10):
        with client.lock("a").acquire():
            pass
    dropped = client.stats()["events_dropped"]
    assert dropped > 0
    go.set()
    client.driver().dispatcher.flush(10.0)
    with client.lock("b").acquire():
        pass
    client.close()
    assert over.wait(30.0)
    assert sum(event.data["count"] for event in seen if event.kind == "missed") == dropped
    assert [event.kind for event in seen][-1] == "closed"


def test_what_could_not_be_written_is_counted_and_a_later_line_of_the_process_tells_the_gap(
    state, tmp_path, caplog
):
    folder = tmp_path / "j"
    folder.write_text("")  # in the place of the folder: nothing can be written
    client = connect(journal_folder=str(folder))
    with client.lock("a").acquire():
        pass
    client.close()
    assert client.stats()["events_dropped"] == 3
    assert "3 lines could not be written" in caplog.text
    folder.unlink()
    with connect(journal_folder=str(folder)) as later, later.lock("b").acquire():
        pass
    history = read_history([folder])
    assert [hold.name for hold in history.holds] == ["b"]
    assert history.gaps.missed == 3


def test_lines_that_are_missing_before_the_first_one_of_a_client_are_a_gap(state, tmp_path):
    folder = tmp_path / "j"
    folder.write_text("")
    with connect(journal_folder=str(folder)) as client:
        with client.lock("a").acquire():
            pass
        client.driver().dispatcher.flush(10.0)
        folder.unlink()
        with client.lock("b").acquire():
            pass
    gaps = read_history([folder]).gaps
    assert (gaps.missed, gaps.absent) == (3, 0)


class Slow:
    """A plugin that takes no event until it is let go."""

    def __init__(self):
        self.go, self.began, self.over, self.seen = (
            threading.Event(),
            threading.Event(),
            threading.Event(),
            [],
        )

    @hooks.hookimpl
    def lockkit_event(self, event):
        self.began.set()
        self.go.wait(60.0)
        self.seen.append(event)
        if event.kind == "closed":
            self.over.set()


def missed(seen):
    return sum(event.data["count"] for event in seen if event.kind == "missed")


def test_the_last_event_of_a_client_reaches_a_plugin_whose_queue_is_full(monkeypatch):
    monkeypatch.setattr(delivery, "_QUEUE", 3)
    slow = Slow()
    client = lockkit.connect("memory:", plugins=[slow])
    for _ in range(5):
        with client.lock("a").acquire():
            pass
    client.close()
    dropped = client.stats()["events_dropped"]
    assert dropped > 0
    slow.go.set()
    assert slow.over.wait(30.0)
    assert missed(slow.seen) == dropped
    assert [event.kind for event in slow.seen][-1] == "closed"


def test_what_a_hanging_plugin_was_not_told_when_its_client_was_closed_is_counted_and_told_it_later(
    monkeypatch, caplog
):
    slow = Slow()
    client, other = (lockkit.connect("memory:", plugins=[slow]) for _ in range(2))
    client.lock("a").acquire().release()
    assert slow.began.wait(30.0)
    monkeypatch.setattr(delivery, "HANGS", -1.0)
    for _ in range(5):
        client.lock("a").acquire().release()
    other.lock("b").acquire().release()
    client.close()
    other.close()
    dropped = [each.stats()["events_dropped"] for each in (client, other)]
    assert dropped == [11, 2], "all but the one that hangs"
    assert ": 1 event did not reach" in caplog.text
    monkeypatch.setattr(delivery, "HANGS", 60.0)
    slow.go.set()
    while len(slow.seen) < 5:
        slow.over.wait(0.01)
    assert missed(slow.seen) == 13
    assert [event.kind for event in slow.seen].count("closed") == 2


def test_what_a_slow_plugin_was_not_told_when_the_process_ends_is_counted_in_the_log(tmp_path):
    program = """
import logging, threading, lockkit
logging.basicConfig()
began = threading.Event()
class Slow:
    @lockkit.hookimpl
    def lockkit_event(self, event):
        began.set()
        threading.Event().wait()
client = lockkit.connect("memory:", plugins=[Slow()])
client.lock("a").acquire().release()
assert began.wait(30)
{close}
"""
    for close in ("client.close()", ""):
        done = subprocess.run(
            [sys.executable, "-c", program.format(close=close)],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert ": 1 event did not reach" in done.stderr, close


def test_a_holder_without_a_journal_is_named(state, tmp_path):
    with lockkit.connect("sqlite:") as silent, silent.lock("a").acquire():

        def work(parent):
            with connect() as other, contextlib.suppress(AcquireError):
                other.lock("a").acquire(timeout=0)
            parent.tell("done")

        worker = Child(work)
        try:
            worker.read(30.0)
        finally:
            worker.close()
    (unheard,) = read_history().gaps.unheard
    assert f"pid {os.getpid()}" in unheard


def test_a_forked_child_numbers_its_own_lines(state):
    with connect() as client:
        with client.lock("a").acquire():
            pass

        def work(parent):
            with client.lock("b").acquire():
                pass
            client.close()
            parent.tell("done")

        child = Child(work)
        pid = child.pid
        try:
            child.read(30.0)
        finally:
            child.close()
    history = read_history()
    assert {hold.owner.pid for hold in history.holds} == {os.getpid(), pid}
    assert not history.gaps


def test_a_folder_that_cannot_be_written_costs_no_lock(state, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with connect(journal_folder=str(tmp_path / "file")) as client, client.lock("a").acquire() as lease:
        client.driver().dispatcher.flush(10.0)
        assert lease.valid
    assert sum("cannot write the event journal" in record.getMessage() for record in caplog.records) == 1


def test_on_a_store_of_all_users_each_has_a_file_that_the_group_may_read(state, tmp_path):
    chosen = config.load(f"sqlite:{tmp_path}/host.db", journal=True, environ=os.environ)
    mine = EventJournal(chosen, "host", this_process())
    old = os.umask(0o077)
    try:
        mine.lockkit_event(Event("acquired", "a", "0123456789ab", 1, at=1.0))
    finally:
        os.umask(old)
    path = tmp_path / f"events-{this_process().user}.jsonl"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    another = tmp_path / "events-somebody.jsonl"
    written = path.read_text().replace("0123456789ab", "ba9876543210").replace('"writer": "', '"writer": "x')
    another.write_text(written.replace(f'"user": "{this_process().user}"', '"user": "somebody"'))
    assert journals(chosen) == [path, another]
    assert {hold.owner.user for hold in read_history(config=chosen).holds} == {
        this_process().user,
        "somebody",
    }


def test_of_two_ends_of_certainty_the_earlier_one_counts(tmp_path):
    path = tmp_path / "x.jsonl"
    claim = "0123456789ab"
    for first, second in ((103.0, 107.0), (107.0, 103.0)):
        lost = row("one", 2, "lost", claim, 108.0, until=first)
        absent = row("one", 3, "absent", claim, 109.0, until=second)
        path.write_text(row("one", 1, "acquired", claim, 100.0) + lost + absent)
        (hold,) = read_history([path]).holds
        assert (hold.until_boottime, hold.end) == (103.0, "lost")


def test_a_file_is_renamed_when_its_first_row_is_a_day_old_and_removed_when_it_is_too_old(state, monkeypatch):
    def written(name):
        with connect(journal_max_age=7 * 86_400.0) as client, client.lock(name).acquire():
            pass

    written("old")
    path = events(state)
    rows = [json.loads(row) for row in path.read_text().splitlines() if row]
    path.write_text("".join(json.dumps(row | {"at": row["at"] - 90_000.0}) + "\n" for row in rows))
    written("new")
    assert [each.name for each in appending.rotated(path)] == ["events.jsonl.1"]
    assert '"old"' not in path.read_text()
    assert [hold.name for hold in read_history().holds] == ["old", "new"]

    older = path.with_name("events.jsonl.1")
    os.utime(older, (older.stat().st_mtime - 8 * 86_400.0,) * 2)
    written("newest")
    assert not older.exists()
    assert [hold.name for hold in read_history().holds] == ["new", "newest"]


def told(history):
    """The parts of a history, without the order of what came at the same time."""
    parts = (history.holds, history.waits, history.happenings, history.steps)
    rest = (history.gaps, history.first, history.unbegun)
    return *(sorted(map(str, part)) for part in parts), *map(str, rest)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("since", [None, 60.0])
def test_the_past_does_not_depend_on_the_order_of_rows_and_files(tmp_path, seed, since):
    chance = random.Random(seed)
    claims = [f"{n:012x}" for n in range(12)]
    kinds = [
        "acquired",
        "released",
        "lost",
        "absent",
        "evicted",
        "gpu_idle",
        "guard_written",
        "busy",
        "queued",
    ]
    rows = []
    for writer in ("one", "two", "three"):
        for number in range(1, 30):
            kind = chance.choice(kinds) if number < 29 or writer == "three" else "closed"
            owned = claims[number_of(writer) :: 3] if kind == "acquired" else claims
            more = {
                "data": {
                    "holder": f"x@one pid 1 ({writer})",
                    "holder_claim": chance.choice(claims),
                    "ttl": 5.0,
                }
            }
            more |= {"until": 3.0 * number} if kind in ("lost", "released") else {}
            at = 3.0 * number + chance.random() - 40 * (chance.random() < 0.1)
            if chance.random() < 0.9:
                rows.append(
                    row(writer, number, kind, chance.choice(owned), max(at, 0.0), fence=number, **more)
                )
    one_of_each = {json.loads(each)["claim"]: each for each in rows if '"acquired"' in each}
    rows = [each for each in rows if '"acquired"' not in each or each in one_of_each.values()]
    paths = [tmp_path / name for name in ("a.jsonl", "b.jsonl")]
    paths[0].write_text("".join(rows))
    expected = told(read_history(paths[:1], since=since))
    for _ in range(5):
        chance.shuffle(rows)
        at = chance.randrange(len(rows))
        paths[0].write_text("".join(rows[at:] + rows[:3]))
        paths[1].write_text("".join(rows[:at]))
        assert told(read_history(chance.sample(paths, 2), since=since)) == expected


def number_of(writer):
    """The number of a writer."""
    return ("one", "two", "three").index(writer)


@pytest.mark.parametrize("rows_of_a_writer", [3, 3000])
def test_a_reader_keeps_a_small_part_of_each_row(tmp_path, rows_of_a_writer):
    """A journal of a million rows takes less memory than the file."""
    path = tmp_path / "x.jsonl"
    with path.open("w") as opened:
        for number in range(3000):
            writer, claim = f"w{number // rows_of_a_writer}", f"{number // 3:012x}"
            kind = ("acquired", "released", "closed" if rows_of_a_writer == 3 else "queued")[number % 3]
            opened.write(
                row(writer, number % rows_of_a_writer + 1, kind, claim, number / 7, until=number / 8)
            )
    read_history([path])
    tracemalloc.start()
    try:
        history = read_history([path])
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (len(history.holds), history.gaps.absent) == (1000, 0)
    assert most / 3000 < 500
