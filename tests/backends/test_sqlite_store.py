"""The embedded store with real processes, clocks and trouble; shared rules are in test_store_rules.py."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import re
import shutil
import signal
import sqlite3
import stat
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from lockkit.errors import BackendUnavailable, ConfigError, IncompatibleLayout, PermissionDenied
from lockkit.facts import Owner
from lockkit.store import crowds
from lockkit.store.queue import RW_CAPACITY
from lockkit.store.spi import (
    RELEASED,
    Busy,
    Granted,
    Lapsed,
    OpenOptions,
    Queued,
    Refused,
    Unknown,
)
from lockkit.testing.claims import claim, renew, take
from lockkit.testing.took import Took
from lockkit.values.names import claim_id
from lockkit_sqlite import CAPABILITIES, acquiring, connection, failures, layout, place, statements
from lockkit_sqlite.backend import open_store
from lockkit_sqlite.connection import Connection
from lockkit_sqlite.pulse import ALIVE, DEAD, probe
from lockkit_sqlite.pulses import LISTENER
from support.clocks import StillClock

AT_ONCE = 20.0
"""Seconds for immediate events on a busy machine. Nothing here polls; the ttls that matter are a minute."""

PEER = """
import json, os, sys, threading, time
from lockkit.facts import Owner
from lockkit.values.names import new_token
from lockkit.store.spi import Claim, Granted, OpenOptions, Queued, Terms
from lockkit_sqlite.backend import open_store

store = open_store(sys.argv[1], OpenOptions(
    owner=Owner(user="peer", host="box", pid=os.getpid(), program="peer")))
claims = {}

def show(answer):
    if isinstance(answer, Granted):
        return ["granted", answer.fence]
    return [type(answer).__name__.lower(), getattr(answer, "position", getattr(answer, "why", None))]

def block(claim):
    answer, create = store.acquire(claim, True, 2.0), False
    while isinstance(answer, Queued):
        woken = threading.Event()
        watch = store.watch(claim.terms.name, answer.blockers, woken.set, claim)
        while not woken.wait(1.0):
            store.renew([(claim, None)], 2.0)
        watch.close()
        answer = store.acquire(claim, False, 2.0)
    return answer

def run(verb, key=None, *rest):
    if verb in ("acquire", "block"):
        claims[key] = claim = Claim(new_token(), Terms(key.partition("#")[0], **(rest[0] if rest else {})))
        return show(store.acquire(claim, True, 2.0) if verb == "acquire" else block(claim))
    if verb == "release":
        return store.release(claims[key], 2.0)
    if verb == "evict":
        evicted = store.evict(key, rest[0], 2.0)
        return [evicted.outcome, evicted.blocks_until]
    if verb == "evict now":
        return store.evict(key, rest[0], 2.0, now=True).outcome
    if verb == "renew":
        return store.renew([(claims[key], rest[0])], 2.0)[0].state
    if verb == "fork":  # a child that lives on, and does nothing
        pid = os.fork()
        if pid == 0:
            os.close(0); os.close(1)
            time.sleep(60)
            os._exit(0)
        return pid
    if verb == "hand-on":  # a child that inherits the pulse
        import subprocess
        return subprocess.Popen(["sleep", "60"], pass_fds=store.extras.pulse(), stdin=subprocess.DEVNULL,
                                stdout=subprocess.DEVNULL).pid
    if verb == "relay":  # release, and say when
        at = time.monotonic_ns()
        store.release(claims[key], 2.0)
        return at
    if verb == "stamp":  # wait for it, and say when it came
        answer = block(claims.setdefault(key, Claim(new_token(), Terms(key.partition("#")[0]))))
        at = time.monotonic_ns()
        return [at, answer.fence]
    if verb == "cpu":
        return time.process_time()
    raise SystemExit(verb)

for line in sys.stdin:
    print(json.dumps(run(*json.loads(line))), flush=True)
"""


class Peer:
    """Another process on the same store."""

    def __init__(self, url, **options):
        env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PEER, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
            **options,
        )

    def send(self, *command):
        print(json.dumps(command), file=self.process.stdin, flush=True)

    def read(self):
        line = self.process.stdout.readline()
        assert line, f"the peer died: {self.process.wait()}"
        return json.loads(line)

    def __call__(self, *command):
        self.send(*command)
        return self.read()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def url(tmp_path):
    tmp_path.chmod(0o700)
    return f"sqlite:{tmp_path}/locks.db"


@pytest.fixture
def store(url):
    opened = open_store(url, OpenOptions())
    yield opened
    opened.close()
    assert not LISTENER.watcher._waiters, "a watch that is left reads what is meant for another test"


@pytest.fixture
def peer(url):
    with contextlib.ExitStack() as stack:

        def start(**options):
            one = Peer(url, **options)
            stack.callback(one.close)
            return one

        yield start


def wait_for(store, one, within=AT_ONCE):
    """Wait like the protocol does, and never by polling: how long it took."""
    start = time.monotonic()
    answer = store.acquire(one, True, 2.0)
    while isinstance(answer, Queued):
        woken = threading.Event()
        watch = store.watch(one.terms.name, answer.blockers, woken.set, one)
        assert woken.wait(start + within - time.monotonic()), "nobody woke the waiter"
        watch.close()
        answer = store.acquire(one, False, 2.0)
    assert isinstance(answer, Granted)
    return time.monotonic() - start


def states(store, name="a"):
    return [info.state for info in store.inspect(name, 2.0).claims]


def file_of(url):
    return url.removeprefix("sqlite:")


SHAPES = {
    "mutex": [{}],
    "semaphore": [{"capacity": 2, "kind": "semaphore"}] * 2,
    "writer": [{"weight": RW_CAPACITY, "capacity": RW_CAPACITY, "kind": "write"}],
    "readers": [{"weight": 1, "capacity": RW_CAPACITY, "kind": "read"}] * 2,
}
shapes = pytest.mark.parametrize("full", SHAPES.values(), ids=SHAPES.keys())


def heavy(full):
    """The terms of a claim that does not fit beside any of these."""
    shape = full[0]
    return {"weight": shape.get("capacity", 1), "capacity": shape.get("capacity", 1)}


# -- death ---------------------------------------------------------------------------------------------------


@shapes
@pytest.mark.parametrize("bound", [False, True], ids=["ttl", "process-bound"])
def test_after_kill_9_of_the_holders_an_acquire_succeeds_at_once(store, peer, full, bound):
    peers = [peer() for _ in full]
    for each, shape in zip(peers, full, strict=True):
        assert each("acquire", "a", {**shape, "process_bound": bound, "ttl": 60})[0] == "granted"
    assert isinstance(store.acquire(claim(wait=False, **heavy(full)), True, 2.0), Busy)
    for each in peers:
        each.kill()

    started = time.monotonic()
    take(store, wait=False, **heavy(full))

    assert time.monotonic() - started < AT_ONCE


@shapes
def test_kill_9_of_a_holder_wakes_who_waits_for_it(store, peer, full):
    peers = [peer() for _ in full]
    for each, shape in zip(peers, full, strict=True):
        each("acquire", "a", {**shape, "ttl": 60})
    one, took = claim(**heavy(full)), []
    waiter = threading.Thread(target=lambda: took.append(wait_for(store, one)))
    waiter.start()
    while len(states(store)) <= len(full):
        time.sleep(0.001)

    killed = time.monotonic()
    for each in peers:
        each.kill()
    waiter.join(30)

    assert took
    assert time.monotonic() - killed < AT_ONCE


def test_the_death_of_any_one_holder_of_a_semaphore_lets_the_waiter_in(store, peer):
    shape = {"capacity": 2, "kind": "semaphore", "ttl": 60}
    peers = [peer(), peer()]
    for victim in (1, 0):  # the one that is last in the queue, then the one that is first
        for each in peers:
            assert each("acquire", "a", shape)[0] == "granted"
        timer = threading.Timer(0.05, peers[victim].kill)
        timer.start()
        one = claim(**shape)
        wait_for(store, one)
        timer.join()
        store.release(one, 2.0)
        peers[1 - victim]("release", "a")
        peers[victim] = peer()


def test_a_dead_waiter_costs_nothing(store, peer):
    held, _ = take(store, ttl=60)
    middle = peer()
    assert middle("acquire", "a") == ["queued", 1]
    behind = peer()
    behind.send("block", "a")
    while len(states(store)) < 3:
        time.sleep(0.001)

    middle.kill()
    released = time.monotonic()
    store.release(held, 2.0)

    assert behind.read()[0] == "granted"
    assert time.monotonic() - released < AT_ONCE


def test_a_released_lock_passes_over_a_waiter_that_was_just_killed(store, peer):
    held, _ = take(store, ttl=60)
    first, second = peer(), peer()
    first("acquire", "a")
    assert second("acquire", "a") == ["queued", 2]
    first.kill()

    store.release(held, 2.0)

    assert [info.state for info in store.inspect("a", 2.0).claims] == ["OFFERED"]


def test_a_stopped_holder_lapses_by_its_ttl(store, peer):
    other = peer()
    fence = other("acquire", "a", {"ttl": 0.3})[1]
    other.process.send_signal(signal.SIGSTOP)
    assert isinstance(store.acquire(claim(wait=False), True, 2.0), Busy)

    time.sleep(0.3)
    take(store)
    other.process.send_signal(signal.SIGCONT)

    assert other("renew", "a", fence) == "LOST"


def test_a_stopped_process_bound_holder_keeps_its_claim_and_renews_it_on_resume(store, peer):
    other = peer()
    fence = other("acquire", "a", {"ttl": 0.1, "process_bound": True})[1]
    other.process.send_signal(signal.SIGSTOP)
    time.sleep(0.3)

    assert isinstance(store.acquire(claim(wait=False), True, 2.0), Busy)
    other.process.send_signal(signal.SIGCONT)

    assert other("renew", "a", fence) == "HELD"


@pytest.mark.parametrize("terms, seconds", [({"min_hold": 0.5}, 0.5), ({"lock_delay": 0.5}, 0.5)], ids=str)
def test_min_hold_and_lock_delay_outlive_kill_9(store, peer, terms, seconds):
    other = peer()
    other("acquire", "a", {"ttl": 60, **terms})
    taken = time.monotonic()
    other.kill()

    assert isinstance(store.acquire(claim(wait=False), True, 2.0), Busy)
    assert states(store) == ["LINGERING"]
    waiter = claim()
    answer = store.acquire(waiter, True, 2.0)
    time.sleep(max(0.0, answer.ask_again_at - time.clock_gettime(time.CLOCK_BOOTTIME)))

    assert isinstance(store.acquire(waiter, False, 2.0), Granted)
    assert time.monotonic() - taken >= seconds - 0.1


def test_a_lingering_claim_does_not_wake_its_waiter_over_and_over(store, peer, watch):
    other = peer()
    other("acquire", "a", {"ttl": 60, "min_hold": 30})
    other.kill()
    waiter = claim()
    answer = store.acquire(waiter, True, 2.0)
    woken = threading.Event()

    watch(waiter, answer, woken.set)

    assert not woken.wait(0.2)


# -- fork ----------------------------------------------------------------------------------------------------


def test_a_forked_child_that_exits_leaves_the_parents_claim_alone(store, peer):
    other = peer()
    fence = other("acquire", "a", {"ttl": 60})[1]
    child = other("fork")
    os.kill(child, signal.SIGKILL)

    assert isinstance(store.acquire(claim(wait=False), True, 2.0), Busy)
    assert store.inspect("a", 2.0).claims[0].alive
    assert other("renew", "a", fence) == "HELD"


def test_a_forked_child_that_outlives_its_parent_does_not_keep_the_claim(store, peer):
    other = peer()
    other("acquire", "a", {"ttl": 60, "process_bound": True})
    child = other("fork")
    other.kill()
    try:
        wait_for(store, claim())
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_child_that_inherits_the_pulse_keeps_the_claim_until_it_dies(store, peer):
    other = peer()
    other("acquire", "a", {"ttl": 60, "process_bound": True})
    child = other("hand-on")
    other.kill()
    assert isinstance(store.acquire(claim(wait=False), True, 2.0), Busy)

    os.kill(child, signal.SIGKILL)

    wait_for(store, claim())


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("ending", ["os._exit", "sys.exit"])
def test_in_a_forked_child_the_inherited_store_refuses_and_can_be_opened_anew(url, ending):
    code = f"""
import os, sys, threading
from lockkit.values.names import new_token
from lockkit.store.spi import Claim, Granted, OpenOptions, Refused, Terms
from lockkit_sqlite.backend import open_store
store = open_store({url!r}, OpenOptions())
one = Claim(new_token(), Terms("a"))
fence = store.acquire(one, True, 2.0).fence
store.watch("a", (), lambda: None, one)
busy = threading.Thread(target=lambda: [store.renew([(one, fence)], 2.0) for _ in range(3000)])
busy.start()  # somebody is in the middle of a statement at the fork
pid = os.fork()
if pid == 0:
    for call in (lambda: store.release(one, 2.0), lambda: store.acquire(one, True, 2.0), store.extras.pulse,
                 lambda: store.renew([(one, fence)], 2.0), lambda: store.emergency_release(one, 2.0)):
        try:
            call()
        except Refused as refusal:
            assert not refusal.retry
        else:
            os._exit(3)
    store.close()
    mine = open_store({url!r}, OpenOptions())
    if not isinstance(mine.acquire(Claim(new_token(), Terms("b")), True, 2.0), Granted):
        os._exit(4)
    {ending}(0)
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
busy.join()
assert store.renew([(one, fence)], 2.0)[0].state == "HELD"
assert not store.inspect("b", 2.0).claims
sys.exit(code)
"""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=env, timeout=30, check=False)

    assert done.returncode == 0


# -- exclusion -----------------------------------------------------------------------------------------------

HAMMER = (
    PEER.partition("for line in sys.stdin")[0]
    + """
path, rounds, kill = sys.argv[2], int(sys.argv[3]), sys.argv[4] == "kill"
for number in range(rounds):
    claim = Claim(new_token(), Terms("hammer", ttl=20))
    fence = block(claim).fence
    try:
        os.close(os.open(path + ".inside", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        print("OVERLAP", flush=True)
        os._exit(9)
    with open(path, "a") as history:
        history.write(f"{fence}\\n")
    os.unlink(path + ".inside")
    if kill and number == rounds - 1:
        os.kill(os.getpid(), 9)
    store.release(claim, 2.0)
"""
)


def test_processes_that_hammer_one_lock_never_overlap_and_fences_rise_in_grant_order(url, tmp_path):
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    path = tmp_path / "history"
    kinds = ["kill", "stay"] * 3
    hammers = [
        subprocess.Popen(
            [sys.executable, "-c", HAMMER, url, str(path), "150", kind], env=env, stdout=subprocess.PIPE
        )
        for kind in kinds
    ]
    codes = []
    for hammer in hammers:
        output, _ = hammer.communicate(timeout=60)
        assert b"OVERLAP" not in output
        codes.append(hammer.returncode)

    fences = [int(line) for line in path.read_text().split()]
    assert codes == [-9, 0] * 3
    assert len(fences) == 6 * 150
    assert fences == sorted(set(fences))


def test_sixty_four_threads_share_one_client(store):
    inside, overlaps, fences = [0], [0], []

    def work():
        for _ in range(3):
            one = claim()
            wait_for(store, one, within=30)
            inside[0] += 1
            overlaps[0] += inside[0] > 1
            fences.append(store.inspect("a", 5.0).claims[0].fence)
            inside[0] -= 1
            store.release(one, 5.0)

    threads = [threading.Thread(target=work) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(40)

    assert overlaps == [0]
    assert len(fences) == 64 * 3
    assert fences == sorted(fences)


def test_a_hand_off_between_processes_is_quick_and_nobody_polls(peer):
    left, right = peer(), peer()
    took = []
    left("acquire", "h#0")
    giver, taker = left, right
    for number in range(60):
        taker.send("stamp", f"h#{number + 1}")
        time.sleep(0.003)
        at = giver("relay", f"h#{number}")
        came, _ = taker.read()
        took.append((came - at) / 1e6)
        giver, taker = taker, giver
    before = taker("cpu")
    taker.send("stamp", "h#last")
    time.sleep(0.5)
    giver("release", f"h#{number + 1}")
    taker.read()

    assert statistics.median(took) < 100, f"milliseconds: {took}"
    assert taker("cpu") - before < 0.1


def test_others_acquire_while_a_holder_process_stalls_with_the_gil_in_hand(store, url):
    code = f"""
import ctypes, threading, time
from lockkit.values.names import new_token
from lockkit.store.spi import Claim, OpenOptions, Terms
from lockkit_sqlite.backend import open_store
store = open_store({url!r}, OpenOptions())
def churn():
    while True:
        one = Claim(new_token(), Terms("stalled"))
        store.acquire(one, True, 2.0)
        store.release(one, 2.0)
for _ in range(4):
    threading.Thread(target=churn, daemon=True).start()
print("ready", flush=True)
while True:
    ctypes.PyDLL(None).usleep(300_000)  # PyDLL keeps the GIL
    time.sleep(0.002)
"""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE) as staller:
        try:
            assert staller.stdout.readline() == b"ready\n"
            slowest = 0.0
            with Took() as took:
                while took.seconds < 2.0:
                    started = took.seconds
                    one, _ = take(store, "mine")
                    slowest = max(slowest, took.seconds - started)
                    store.release(one, 2.0)
                    time.sleep(0.005)
        finally:
            staller.kill()

    assert slowest < 0.15, slowest  # with a transaction around Python code it is the whole stall, 0.3 s


# -- patience ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def locked(url):
    """Somebody holds SQLite's write lock."""
    blocker = sqlite3.connect(file_of(url), isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        blocker.execute("ROLLBACK")
        blocker.close()


def test_a_busy_file_is_refused_within_the_budget_and_may_be_asked_again(store, url):
    with locked(url), Took() as took, pytest.raises(Refused) as caught:
        store.acquire(claim(), True, 0.2)

    assert caught.value.retry
    assert 0.1 < took.seconds < 1.2
    take(store)


def test_a_file_that_is_busy_for_long_is_tried_again_all_the_time(store, url, monkeypatch):
    """After some thousand tries the pause between them must still be a number."""
    tries = itertools.count(1)
    monkeypatch.setattr(
        connection, "time", SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: next(tries))
    )
    with locked(url), pytest.raises(Refused, match="busy"):
        store.acquire(claim(), True, 1.0)
    assert next(tries) > 1100


def test_the_heartbeat_does_not_queue_behind_a_caller_who_waits_for_the_file(store, url):
    one, fence = take(store)

    caller = threading.Thread(target=lambda: store.acquire(claim("b"), True, 60.0))
    with locked(url):
        caller.start()
        time.sleep(0.05)
        started = time.monotonic()
        with pytest.raises(Refused):
            store.renew([(one, fence)], 0.2)
        assert time.monotonic() - started < 30.0  # the caller waits for longer
    caller.join()

    assert store.renew([(one, fence)], 2.0)[0].state == "HELD"


def test_the_heartbeat_has_a_connection_of_its_own(store):
    one, fence = take(store)
    busy, done = threading.Event(), threading.Event()

    def call():  # somebody is in the middle of a call, and will be for a while
        with store._store.calls._inside:
            busy.set()
            done.wait(30)

    caller = threading.Thread(target=call)
    caller.start()
    busy.wait(30)
    try:
        assert store.renew([(one, fence)], 1.0)[0].state == "HELD"
        assert store.emergency_release(one, 1.0) == RELEASED
    finally:
        done.set()
        caller.join()


def test_a_resize_between_the_look_and_the_grant_grants_nothing(store, url, monkeypatch):
    operator = open_store(url, OpenOptions())
    shape = {"capacity": 2, "kind": "semaphore"}
    (leaver, _), _, waiter = take(store, **shape), take(store, **shape), claim(**shape)
    store.acquire(waiter, True, 2.0)
    store.release(leaver, 2.0)
    link, write = store._store.calls, store._store.calls.write

    def late(sql, params, end):
        if sql.startswith("UPDATE entries SET state"):
            operator.resize("a", 1, 2.0)
        return write(sql, params, end)

    monkeypatch.setattr(link, "write", late)

    assert isinstance(store.acquire(waiter, False, 2.0), Queued)
    assert states(store) == ["HELD", "WAITING"]
    operator.close()


def test_resizes_there_and_back_between_the_look_and_the_grant_let_in_no_third(store, url, monkeypatch):
    operator = open_store(url, OpenOptions())
    shape = {"capacity": 2, "kind": "semaphore"}
    (leaver, _), _, waiter, behind = (
        take(store, **shape),
        take(store, **shape),
        claim(**shape),
        claim(**shape),
    )
    store.acquire(waiter, True, 2.0)
    store.acquire(behind, True, 2.0)
    store.release(leaver, 2.0)
    link, write = store._store.calls, store._store.calls.write
    let_in = []

    def late(sql, params, end):
        if sql.startswith("UPDATE entries SET state") and not let_in:
            operator.resize("a", 3, 2.0)
            let_in.append(operator.acquire(behind, False, 2.0))
            operator.resize("a", 2, 2.0)
        return write(sql, params, end)

    monkeypatch.setattr(link, "write", late)

    assert isinstance(store.acquire(waiter, False, 2.0), Queued)
    assert isinstance(let_in[0], Granted)
    assert states(store) == ["HELD", "WAITING", "HELD"]
    operator.close()


def test_a_deadline_counts_from_when_the_file_was_free(store, url):
    answers = []
    with locked(url):
        caller = threading.Thread(target=lambda: answers.append(store.acquire(claim(ttl=30), True, 2.0)))
        caller.start()
        time.sleep(0.4)
        freed = time.clock_gettime(time.CLOCK_BOOTTIME)
    caller.join()

    assert answers[0].basis > freed - 0.05


# -- trouble -------------------------------------------------------------------------------------------------


def refusal(url, **options):
    with pytest.raises(Refused) as caught:
        open_store(url, OpenOptions(**options))
    assert not caught.value.retry
    assert caught.value.error.hint
    return caught.value.error


def test_a_file_that_is_no_database_is_refused(tmp_path):
    tmp_path.chmod(0o700)
    (tmp_path / "x.db").write_bytes(b"not a database, but long enough to be looked at" * 100)

    assert isinstance(refusal(f"sqlite:{tmp_path}/x.db"), BackendUnavailable)


def test_a_full_disk_is_refused_and_nothing_is_held(store):
    pages = store._store.calls.read("PRAGMA page_count", (), time.monotonic() + 1)[0][0]
    store._store.calls.read(f"PRAGMA max_page_count={pages}", (), time.monotonic() + 1)

    answers = []

    def fill():
        while len(answers) < 1000:
            answers.append(store.acquire(claim(f"{len(answers):0500}"), True, 2.0))

    with pytest.raises(Refused, match="full"):
        fill()
    assert len(store.names("", 2.0)) == len(answers)


@pytest.fixture
def little_disk(tmp_path):
    """A file system of 1 MB; skipped where this user may not mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "lockkit-test", str(disk)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount")
    if done.returncode:
        pytest.skip("this user may not mount a file system")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk):
    with contextlib.suppress(OSError), (disk / "ballast").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_a_disk_that_is_full_already_is_told_with_what_is_free(little_disk):
    fill(little_disk)

    with pytest.raises((Refused, Unknown)) as caught:
        open_store(f"sqlite:{little_disk}/x.db", OpenOptions())

    assert isinstance(caught.value.error, BackendUnavailable)
    assert f"full, 0 KiB free in {little_disk}" in caught.value.error.message
    assert caught.value.error.hint.startswith("free some space")


def test_a_disk_that_becomes_full_is_an_error_of_the_check(little_disk):
    store = open_store(f"sqlite:{little_disk}/x.db", OpenOptions())
    fill(little_disk)

    findings = {finding.check: finding for finding in store.check(2.0)}

    assert findings["free space"].severity == "error"
    assert findings["free space"].message == f"the disk is full: 0 KiB free in {little_disk}"
    store.close()


@pytest.mark.parametrize(
    "free, told, hint",
    [(0, "the disk is full, 0 KiB free in /data", "free some space"), (1 << 30, "IOERR_SHMSIZE", "dmesg")],
)
def test_an_input_output_error_is_put_down_to_a_full_disk_only_if_it_is_full(monkeypatch, free, told, hint):
    monkeypatch.setattr(failures, "free_space", lambda path: free)
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorname = "SQLITE_IOERR_SHMSIZE"

    mapped = failures.mapped(error, "/data/x.db")

    assert isinstance(mapped, Unknown)
    assert told in mapped.error.message
    assert hint in mapped.error.hint
    assert "doctor" not in str(mapped.error), "doctor shows this, and must not point at itself"


def test_a_sticky_folder_is_refused_with_the_reason(tmp_path):
    tmp_path.chmod(0o1777)

    error = refusal(f"sqlite:{tmp_path}/x.db")

    assert isinstance(error, PermissionDenied)
    assert "sticky" in str(error)


def test_a_group_folder_without_setgid_is_refused_with_the_command(tmp_path):
    tmp_path.chmod(0o770)

    assert "chmod g+s" in str(refusal(f"sqlite:{tmp_path}/x.db"))


def test_a_network_file_system_is_refused_with_the_alternative(tmp_path, monkeypatch):
    tmp_path.chmod(0o700)
    monkeypatch.setattr(place, "network_filesystem", lambda path: "nfs4")

    error = refusal(f"sqlite:{tmp_path}/x.db")

    assert "nfs4" in str(error)
    assert "Redis" in str(error)


AS_NOBODY = """
import os, sys
from lockkit.values.names import new_token
from lockkit.store.spi import Busy, Claim, Granted, OpenOptions, Refused, Terms
from lockkit_sqlite.backend import open_store
warm = open_store(f"sqlite:{sys.argv[3]}/warm.db", OpenOptions())  # imports everything while it still may
warm.acquire(Claim(new_token(), Terms("a")), True, 2.0)
os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(65534); os.umask(0o077)
try:
    store = open_store(sys.argv[1], OpenOptions())
    answer = store.acquire(Claim(new_token(), Terms("a"), wait=False), True, 2.0)
    print(type(answer).__name__, [c.alive for c in store.inspect("a", 2.0).claims], flush=True)
    print(type(store.acquire(Claim(new_token(), Terms("b")), True, 2.0)).__name__, flush=True)
    sys.stdin.read()
except Refused as refusal:
    print(type(refusal.error).__name__, refusal.retry, flush=True)
"""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")


@contextlib.contextmanager
def nobody(url, group=65534):
    """A process of another user, and of this group."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONDONTWRITEBYTECODE": "1"}
    with tempfile.TemporaryDirectory() as warm:
        command = [sys.executable, "-c", AS_NOBODY, url, str(group), warm]
        with subprocess.Popen(
            command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            yield process


@pytest.fixture
def open_folder():
    """A folder that other users can reach, unlike pytest's."""
    made = Path(
        subprocess.run(
            ["mktemp", "-d", "/var/tmp/lockkit-XXXXXX"], capture_output=True, text=True, check=True
        ).stdout.strip()
    )
    yield made
    subprocess.run(["rm", "-rf", made], check=True)


@as_root
def test_a_folder_that_cannot_be_written_to_is_permission_denied(open_folder):
    open_folder.chmod(0o755)

    with nobody(f"sqlite:{open_folder}/x.db") as process:
        assert process.stdout.readline() == "PermissionDenied False\n"


@as_root
def test_a_file_of_somebody_elses_is_permission_denied(open_folder):
    open_folder.chmod(0o755)
    open_store(f"sqlite:{open_folder}/x.db", OpenOptions()).close()
    Path(f"{open_folder}/x.db").chmod(0o644)

    with nobody(f"sqlite:{open_folder}/x.db") as process:
        assert process.stdout.readline() == "PermissionDenied False\n"


@as_root
@pytest.mark.parametrize("rest", ["x.db", "deeper/x.db"])
def test_a_folder_that_may_not_be_looked_into_is_named(open_folder, rest):
    open_folder.chmod(0o700)

    os.seteuid(65534)
    try:
        refused = refusal(f"sqlite:{open_folder}/{rest}")
    finally:
        os.seteuid(0)

    assert isinstance(refused, PermissionDenied)
    assert f"this user may not look into {open_folder} (mode 0700)" in refused.message
    assert "a folder of your own" in refused.hint


@pytest.mark.parametrize(
    "rest, reason", [("x" * 300, errno.ENAMETOOLONG), ("loop/x.db", errno.ELOOP), ("loop", errno.ELOOP)]
)
def test_a_place_that_cannot_be_looked_at_is_unavailable_with_the_reason(tmp_path, rest, reason):
    (tmp_path / "loop").symlink_to("loop")

    refused = refusal(f"sqlite:{tmp_path}/{rest}")

    assert isinstance(refused, BackendUnavailable)
    assert str(tmp_path) in refused.message
    assert os.strerror(reason) in refused.message
    assert refused.hint != "name another file"


def test_a_link_in_a_shared_folder_is_not_followed(tmp_path):
    folder, mine = tmp_path / "shared", tmp_path / "mine.db"
    folder.mkdir()
    folder.chmod(0o2770)
    mine.touch(0o600)
    (folder / "x.db").symlink_to(mine)

    refused = refusal(f"sqlite:{folder}/x.db")

    assert isinstance(refused, PermissionDenied)
    assert refused.message.startswith(f"{folder}/x.db is a symbolic link, ")
    assert mine.stat().st_size == 0


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
def test_a_link_in_place_of_the_log_is_named(tmp_path, suffix):
    mine = tmp_path / "mine"
    mine.touch(0o600)
    open_store(f"sqlite:{tmp_path}/x.db", OpenOptions()).close()
    (tmp_path / f"x.db{suffix}").symlink_to(mine)

    refused = refusal(f"sqlite:{tmp_path}/x.db")

    assert isinstance(refused, PermissionDenied)
    assert refused.message.startswith(f"{tmp_path}/x.db{suffix} is a symbolic link, ")
    assert mine.stat().st_size == 0


@pytest.mark.parametrize("when", ["before", "during"])
def test_a_link_that_is_planted_while_the_store_opens_is_refused(tmp_path, monkeypatch, when):
    mine, path = tmp_path / "mine.db", tmp_path / "x.db"
    open_store(f"sqlite:{mine}", OpenOptions()).close()
    open_store(f"sqlite:{path}", OpenOptions()).close()
    connect = sqlite3.connect

    def plant():
        path.unlink()
        path.symlink_to(mine)

    def planting(*args, **keywords):
        plant()
        return connect(*args, **keywords)

    if when == "before":
        monkeypatch.setattr("lockkit_sqlite.opening.make_file", lambda path, place: plant())
    else:
        monkeypatch.setattr(sqlite3, "connect", planting)

    refused = refusal(f"sqlite:{path}")

    assert refused.message.startswith(f"{path} is a symbolic link, ")


@as_root
def test_a_host_store_is_shared_by_the_group_whatever_the_umask(open_folder):
    group = 54321
    os.chown(open_folder, 0, group)
    open_folder.chmod(0o2770)
    url = f"sqlite:{open_folder}/x.db"
    before = os.umask(0o077)
    try:
        mine = open_store(url, OpenOptions())
        one, fence = take(mine, ttl=60)
    finally:
        os.umask(before)

    with nobody(url, group) as process:
        assert process.stdout.readline() == "Busy [True]\n", "it sees my claim, and my pulse answers it"
        assert process.stdout.readline() == "Granted\n"
        modes = {
            entry.name: (stat.S_IMODE(entry.stat().st_mode), entry.stat().st_gid)
            for folder in (open_folder, open_folder / "x.db.pulses")
            for entry in folder.iterdir()
            if not entry.is_dir()
        }
        assert {"x.db", "x.db-wal", "x.db-shm"} < modes.keys()
        assert len(modes) == 6, "the lock file, and two FIFOs"
        assert set(modes.values()) == {(0o660, group)}
        assert mine.inspect("b", 2.0).claims[0].alive
        process.kill()
        process.wait()
    assert not mine.inspect("b", 2.0).claims
    take(mine, "b", wait=False)
    assert mine.renew([(one, fence)], 2.0)[0].state == "HELD"
    mine.close()


def test_a_private_stores_files_are_its_users_alone(store, url, tmp_path):
    take(store)

    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if not path.is_dir()}

    assert modes == {0o600}
    assert stat.S_IMODE(Path(file_of(url) + ".pulses").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "bad",
    [
        "sqlite:relative.db",
        "sqlite://host/x.db",
        "sqlite:/x.db?ttl=3",
        "sqlite:/x.db?synchronous=no",
        "sqlite:/tmp/",
    ],
)
def test_a_url_that_is_not_allowed_says_what_is(bad):
    with pytest.raises(ConfigError) as caught:
        open_store(bad, OpenOptions())

    assert caught.value.hint


def test_an_unknown_option_is_told_both_the_stores_options_and_the_settings():
    with pytest.raises(ConfigError) as caught:
        open_store("sqlite:?tttl=3", OpenOptions())

    assert caught.value.hint.startswith(
        "did you mean ttl? allowed: synchronous; and the settings namespace, ttl, "
    )


def test_the_default_url_is_a_file_in_the_state_folder(tmp_path):
    tmp_path.chmod(0o700)

    store = open_store("sqlite:", OpenOptions(state_dir=str(tmp_path / "state")))
    take(store)

    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    assert (tmp_path / "state" / "lockkit.db").is_file()
    store.close()


def test_both_spellings_of_a_url_and_a_link_to_the_folder_are_one_store(store, url, tmp_path):
    take(store)
    (tmp_path / "link").symlink_to(tmp_path)

    for spelling in (
        url.replace("sqlite:", "sqlite://"),
        f"sqlite:{tmp_path}/link/locks.db",
        url + "?synchronous=full",
    ):
        other = open_store(spelling, OpenOptions())
        assert isinstance(other.acquire(claim(wait=False), True, 2.0), Busy)
        other.close()


def test_a_path_of_two_hundred_characters_works(tmp_path, peer):
    folder = tmp_path / ("x" * max(1, 200 - len(str(tmp_path)) - 12)) / "y"
    folder.mkdir(parents=True, mode=0o700)
    store = open_store(f"sqlite:{folder}/locks.db", OpenOptions())
    other = Peer(f"sqlite:{folder}/locks.db")
    other("acquire", "a")
    threading.Timer(0.05, other.kill).start()

    wait_for(store, claim())
    other.close()
    store.close()


# -- layout --------------------------------------------------------------------------------------------------


def edit(url, statement, *params):
    with contextlib.closing(sqlite3.connect(file_of(url), isolation_level=None)) as connection:
        return connection.execute(statement, params).rowcount


def test_a_file_for_newer_readers_is_refused_naming_version_and_host(store, url):
    row = json.dumps({"v": 9, "min_reader": 9, "host": "newbox", "lockkit": "7.1"})
    assert edit(url, "UPDATE meta SET value = ? WHERE key = 'layout'", row)

    error = refusal(url)

    assert isinstance(error, IncompatibleLayout)
    assert "newbox" in str(error)
    assert "7.1" in str(error)


def test_a_newer_file_that_this_version_may_read_is_used(store, url):
    edit(
        url,
        "UPDATE meta SET value = ? WHERE key = 'layout'",
        json.dumps({"v": 9, "min_reader": 1, "new": [1]}),
    )

    newer = open_store(url, OpenOptions())
    take(newer)
    newer.close()


@pytest.mark.parametrize("wait", [True, False], ids=["wait", "try"])
def test_a_claim_for_newer_readers_is_never_joined(url, wait):
    newer = open_store(url, OpenOptions())
    shape = {"capacity": 5, "kind": "semaphore"}
    take(newer, owner=Owner(host="newbox", version="7.1"), **shape)
    edit(url, "UPDATE entries SET min_reader = 3")

    with pytest.raises(Refused) as caught:
        newer.acquire(claim(wait=wait, **shape), True, 2.0)

    assert isinstance(caught.value.error, IncompatibleLayout)
    assert "newbox" in str(caught.value.error)
    newer.close()


def test_unknown_fields_of_a_claim_are_kept_and_ignored(store, url):
    one, fence = take(store, owner=Owner(user="ann"))
    edit(url, "UPDATE entries SET info = json_set(info, '$.later', 1, '$.owner.rack', 'r7')")
    store.renew([(one, fence)], 2.0)

    assert store.inspect("a", 2.0).claims[0].owner.user == "ann"


def test_processes_that_create_one_file_together_agree(url, peer):
    peers = [peer() for _ in range(6)]
    for number, each in enumerate(peers):
        each.send("acquire", f"a{number}")

    assert all(each.read()[0] == "granted" for each in peers)


# -- fences and clocks ---------------------------------------------------------------------------------------


def test_fences_rise_while_the_wall_clock_steps_back_and_leave_nothing_for_each_name(url, tmp_path):
    clock = StillClock()
    store = open_store(url, OpenOptions(clock=clock))
    fences = []
    for _ in range(5):
        one, fence = take(store)
        other, _ = take(store, "other")
        fences.append(fence)
        store.release(one, 2.0)
        store.release(other, 2.0)
        clock.epoch -= 3600

    assert fences == sorted(set(fences))
    with contextlib.closing(sqlite3.connect(file_of(url))) as connection:
        left = connection.execute("SELECT namespace, since FROM entries").fetchall()
        assert left == [("", max(fences))]
        assert connection.execute("SELECT fence FROM high").fetchall() == [(max(fences),)]
    store.close()


def test_fences_rise_over_the_loss_of_the_file(url):
    first = open_store(url, OpenOptions())
    _, before = take(first)
    first.close()
    for suffix in ("", "-wal", "-shm"):
        Path(file_of(url) + suffix).unlink(missing_ok=True)

    second = open_store(url, OpenOptions())
    _, after = take(second)

    assert after > before
    second.close()


def test_clients_follow_a_file_that_was_replaced_and_lose_what_was_in_the_old_one(url):
    mine, theirs = open_store(url, OpenOptions()), open_store(url, OpenOptions())
    one, fence = take(mine)
    for path in (file_of(url), file_of(url) + "-wal", file_of(url) + "-shm"):
        Path(path).unlink()

    _, later = take(theirs)

    assert later > fence
    assert mine.renew([(one, fence)], 2.0)[0].state == "LOST"
    assert isinstance(mine.acquire(claim(wait=False), True, 2.0), Busy)
    mine.close()
    theirs.close()


def test_fences_rise_for_waiters_and_tries_too_when_the_clock_is_behind(url):
    clock = StillClock()
    store = open_store(url, OpenOptions(clock=clock))
    shape = {"capacity": 3, "kind": "semaphore"}
    _, first = take(store, **shape)
    clock.epoch -= 1e6
    _, second = take(store, **shape)
    _, third = take(store, wait=False, **shape)
    waiter = claim(**shape)
    assert isinstance(store.acquire(waiter, True, 2.0), Queued)

    fences = [info.fence for info in store.inspect("a", 2.0).claims]

    assert fences[:3] == [first, second, third]
    assert fences == sorted(set(fences))
    store.close()


def end_of_boot(url):
    """Have nobody read the pulses of the claims any more, as after the machine's restart."""
    with contextlib.closing(sqlite3.connect(file_of(url), isolation_level=None)) as database:
        database.execute("UPDATE entries SET fifo = 'ffffffffffffffffffffffff'")


def test_claims_of_another_boot_are_dead(url):
    before = open_store(url, OpenOptions(owner=Owner(boot_id="boot-1"), clock=StillClock(now=9e6)))
    take(before, ttl=3600, process_bound=True)
    end_of_boot(url)
    after = open_store(url, OpenOptions(owner=Owner(boot_id="boot-2"), clock=StillClock(now=10.0)))

    assert after.inspect("a", 2.0).claims == ()
    assert after.names("", 2.0) == []
    take(after, wait=False)
    before.close()
    after.close()


@pytest.mark.parametrize("wait", [True, False], ids=["wait", "try"])
def test_a_claim_waits_behind_no_claims_of_a_boot_that_is_over(url, wait):
    before = open_store(url, OpenOptions(owner=Owner(boot_id="boot-1")))
    take(before, ttl=3600, process_bound=True)
    end_of_boot(url)
    with contextlib.closing(open_store(url, OpenOptions(owner=Owner(boot_id="boot-2")))) as after:
        after._opened.crowds.note("a")  # where a claim waited a moment ago, the next one is appended at once
        assert isinstance(after.acquire(claim(wait=wait), True, 2.0), Granted)
    before.close()


@pytest.mark.parametrize("wait", [True, False], ids=["wait", "try"])
def test_a_busy_file_is_no_refusal_once_the_claim_is_stored(store, url, wait, monkeypatch):
    """Refused means that nothing was applied, and a claim that nobody knows of would stay in the queue."""
    if wait:
        take(store, ttl=60)
    else:  # the fence of the wall clock is taken, so that the queue is read after the claim is added
        edit(url, "UPDATE entries SET since = ? WHERE namespace = ''", int(time.time() * 1e6) + 10**12)
    read, one = Connection.read, claim(wait=wait, ttl=60)

    def busy_once_stored(connection, statement, params, end):
        with contextlib.closing(sqlite3.connect(file_of(url))) as look:
            stored = look.execute("SELECT count(*) FROM entries WHERE token = ?", (one.token,)).fetchone()[0]
        if stored:
            raise failures.busy(connection.path)
        return read(connection, statement, params, end)

    monkeypatch.setattr(Connection, "read", busy_once_stored)

    with pytest.raises(Unknown, match="busy"):
        store.acquire(one, True, 2.0)


def test_a_living_process_with_another_boot_id_loses_nothing(url):
    """A container may show its own boot id; processes inside and outside must not count each other dead."""
    holder = open_store(url, OpenOptions(owner=Owner(boot_id="host")))
    one, fence = take(holder, ttl=3600)
    other = open_store(url, OpenOptions(owner=Owner(boot_id="container")))

    for wait in (False, True):
        with pytest.raises(Refused, match="another boot id") as caught:
            other.acquire(claim(wait=wait), True, 2.0)
        assert not caught.value.retry
    (seen,) = other.inspect("a", 2.0).claims
    assert (seen.fence, seen.alive) == (fence, True)
    with pytest.raises(Refused, match="another boot id"):
        other.evict("a", claim_id(one.token), 2.0, now=True)
    assert renew(holder, one, fence).state == "HELD"
    assert holder.release(one, 2.0) == RELEASED
    take(holder, wait=False)  # what was refused is not in the way
    holder.close()
    other.close()


def test_a_time_namespace_is_refused(url):
    """In a time namespace the clock differs, so others' claims would seem lapsed (time_namespaces(7))."""
    unshare = shutil.which("unshare")
    command = [unshare or "unshare", "--time", "--boottime", "100000", "--fork"]
    if unshare is None or subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no time namespace may be made here")

    code = f"""
from lockkit.store.spi import OpenOptions
from lockkit_sqlite.backend import open_store
open_store({url!r}, OpenOptions())
"""
    done = subprocess.run([*command, sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "time namespace" in done.stderr


def test_min_hold_goes_on_over_a_reboot_by_the_wall_clock_and_no_longer_than_it_is(url):
    before = StillClock(now=1000.0, epoch=1.7e9)
    store = open_store(url, OpenOptions(owner=Owner(boot_id="boot-1"), clock=before))
    take(store, "a", min_hold=600)
    take(store, "b", min_hold=600)
    released, _ = take(store, "c", min_hold=600)
    store.release(released, 2.0)
    store.close()
    end_of_boot(url)

    after = StillClock(now=10.0, epoch=1.7e9 + 1000.0 - 10.0 + 60.0)  # a minute later
    store = open_store(url, OpenOptions(owner=Owner(boot_id="boot-2"), clock=after))
    for name in ("a", "c"):
        assert isinstance(store.acquire(claim(name, wait=False), True, 2.0), Busy)
    after.time += 539
    assert isinstance(store.acquire(claim("a", wait=False), True, 2.0), Busy)
    after.time += 2
    for name in ("a", "c"):
        take(store, name, wait=False)
    after.epoch -= 1e9  # the wall clock lost its battery
    assert isinstance(store.acquire(claim("b", wait=False), True, 2.0), Busy)
    after.time += 601
    take(store, "b", wait=False)
    store.close()


def test_a_fast_path_never_steps_over_a_lapsed_claim(url):
    clock = StillClock()
    store = open_store(url, OpenOptions(clock=clock))
    shape = {"capacity": 3, "kind": "semaphore"}
    lapsed, fence = take(store, ttl=1, **shape)
    clock.time += 1

    take(store, **shape)

    assert edit(url, "UPDATE entries SET weight = weight WHERE token = ?", lapsed.token) == 0
    assert store.renew([(lapsed, fence)], 2.0)[0].state == "LOST"
    store.close()


# -- pulse ---------------------------------------------------------------------------------------------------


def test_without_its_fifo_a_process_is_unknown_and_its_ttl_rules(url):
    clock = StillClock()
    store = open_store(url, OpenOptions(clock=clock))
    other = open_store(url, OpenOptions(clock=clock))
    one, fence = take(store, ttl=10, process_bound=True)
    clock.time += 20
    assert isinstance(other.acquire(claim(wait=False), True, 2.0), Busy)
    store.renew([(one, fence)], 2.0)
    edit(url, "UPDATE entries SET fifo = '0123456789abcdef01234567'")

    assert store.inspect("a", 2.0).claims[0].alive is None
    assert isinstance(other.acquire(claim(wait=False), True, 2.0), Busy)
    clock.time += 20
    assert store.inspect("a", 2.0).claims == ()
    take(other, wait=False)
    assert store.renew([(one, fence)], 2.0)[0].state == "LOST"
    store.close()
    other.close()


def test_a_removed_fifo_is_put_back_by_the_next_heartbeat(store, url, peer):
    one, fence = take(store, ttl=60, process_bound=True)
    pulse = next(Path(file_of(url) + ".pulses").iterdir())
    pulse.unlink()

    store.renew([(one, fence)], 2.0)

    assert probe(str(pulse.parent), pulse.name) == ALIVE
    waiter = peer()
    waiter.send("block", "a")
    while len(states(store)) < 2:
        time.sleep(0.001)
    store.release(one, 2.0)
    assert waiter.read()[0] == "granted"


def test_fifos_of_the_dead_are_swept_and_those_being_born_left_alone(url, peer):
    other = peer()
    other("acquire", "left")
    other.kill()
    folder = Path(file_of(url) + ".pulses")
    (left,) = folder.iterdir()
    assert probe(str(folder), left.name) == DEAD
    unborn = folder / f"{'0' * 24}.new"
    os.mkfifo(unborn)

    store = open_store(url, OpenOptions())
    take(store)

    assert not left.exists()
    assert unborn.exists()
    assert store.names("", 2.0) == ["a"]
    store.close()


def test_a_closed_client_leaves_its_claims_and_the_pulse_that_vouches_for_them(url):
    mine = open_store(url, OpenOptions())
    take(mine, ttl=60)
    mine.close()
    mine.close()

    other = open_store(url, OpenOptions())

    assert isinstance(other.acquire(claim(wait=False), True, 2.0), Busy)
    other.close()


def test_a_client_closed_without_claims_leaves_no_fifo(url):
    mine = open_store(url, OpenOptions())
    one, _ = take(mine)
    mine.release(one, 2.0)
    mine.close()

    assert list(Path(file_of(url) + ".pulses").iterdir()) == []


def descriptors():
    """Where this process's descriptors lead."""
    links = Path("/proc/self/fd")
    return [str(link.readlink()) for link in links.iterdir() if link.is_symlink()]


def test_descriptors_are_close_on_exec_and_a_closed_store_leaves_none(url):
    mine = open_store(url, OpenOptions())
    one, _ = take(mine)
    waiter = claim()
    watch = mine.watch("a", mine.acquire(waiter, True, 2.0).blockers, lambda: None, waiter)
    path = file_of(url)
    assert [target for target in descriptors() if target.startswith(path)]
    child = subprocess.run(
        ["ls", "-l", "/proc/self/fd"], capture_output=True, text=True, close_fds=False, check=True
    )
    assert path not in child.stdout

    watch.close()
    mine.release(waiter, 2.0)
    mine.release(one, 2.0)
    mine.close()

    assert not [target for target in descriptors() if target.startswith(path)]


def test_a_garbled_bell_wakes_everybody(store, url, watch):
    take(store, ttl=60)
    woken = [threading.Event() for _ in range(3)]
    for event in woken:
        waiter = claim()
        watch(waiter, store.acquire(waiter, True, 2.0), event.set)
    pulse = next(Path(file_of(url) + ".pulses").iterdir())

    with pulse.open("wb", buffering=0) as bell:
        bell.write(b"xyz")

    assert all(event.wait(AT_ONCE) for event in woken)


def test_a_bell_rings_for_those_it_names_and_nobody_else(store, url, peer, watch):
    other = peer()
    other("acquire", "a")
    events = {}
    for number in range(3):
        waiter = claim()
        events[number] = threading.Event()
        watch(waiter, store.acquire(waiter, True, 2.0), events[number].set)

    other("release", "a")

    assert events[0].wait(AT_ONCE)
    assert not events[1].wait(0.05)
    assert not events[2].is_set()


def test_an_eviction_tells_the_process_of_a_silent_holder_and_spares_it_for_half_a_ttl(url, store, peer):
    mine, _ = take(store, ttl=60, process_bound=True)
    with contextlib.closing(sqlite3.connect(file_of(url), isolation_level=None)) as file:
        file.execute("UPDATE entries SET renewed = renewed - 600000000, silence = silence - 600000000")
    descriptor, words = store.extras.evictions([claim_id(mine.token)])

    began = time.time()
    outcome, blocks_until = peer()("evict", "a", claim_id(mine.token))

    assert outcome == "MARKED"
    assert began + 30.0 <= blocks_until <= time.time() + 30.0
    assert os.read(descriptor, 100) in words


def test_an_eviction_at_once_tells_the_process_of_the_holder(store, peer):
    mine, _ = take(store, ttl=60, process_bound=True)
    descriptor, words = store.extras.evictions([claim_id(mine.token)])
    peer()("evict now", "a", claim_id(mine.token))
    assert words[0] in os.read(descriptor, 100)


def test_evicting_a_process_bound_holder_frees_the_lock_after_its_ttl(store, peer):
    other = peer()
    fence = other("acquire", "a", {"ttl": 0.5, "process_bound": True})[1]
    holder = store.inspect("a", 2.0).claims[0]
    assert holder.deadline is None

    evicted = store.evict("a", holder.claim_id, 2.0)

    assert evicted.outcome == "MARKED"
    assert evicted.blocks_until == pytest.approx(holder.renewed + 0.5, abs=0.2)
    assert other("renew", "a", fence) == "LOST"
    assert isinstance(store.acquire(claim(wait=False), True, 2.0), Busy)
    time.sleep(max(0.0, evicted.blocks_until - time.time()) + 0.01)
    take(store, wait=False)


# -- many ----------------------------------------------------------------------------------------------------


def test_ten_thousand_holds_are_renewed_in_a_few_statements(store):
    held = [(one, fence) for one, fence in (take(store, f"{number:05}", ttl=60) for number in range(10_000))]
    slowest = [0.0]
    stop = threading.Event()

    def probe_others():
        other = open_store(f"sqlite:{store._store.place.path}", OpenOptions())
        with Took() as took:
            while not stop.is_set():
                started = took.seconds
                one, _ = take(other, "other")
                slowest[0] = max(slowest[0], took.seconds - started)
                other.release(one, 2.0)
        other.close()

    beside = threading.Thread(target=probe_others)
    beside.start()
    with Took() as took:
        renewals = store.renew(held, 30.0)
    stop.set()
    beside.join()

    assert {renewal.state for renewal in renewals} == {"HELD"}
    assert took.seconds < 3
    assert slowest[0] < 1


@pytest.mark.parametrize("left_out", ["RENEW", "PROLONG"])
def test_what_a_batch_has_renewed_counts_although_the_file_was_busy_for_the_rest(
    store, monkeypatch, left_out
):
    """Otherwise a file that is too slow for all of a client's claims would cost it all of them."""
    held = [take(store, f"held-{at}") for at in range(4)]
    waiter = claim("held-0")
    store.acquire(waiter, True, 2.0)
    monkeypatch.setattr("lockkit_sqlite.renewing.CHUNK", 3)
    real, written = Connection.write, []

    def write(self, statement, *rest):
        written.append(statement)
        if written.count(getattr(statements, left_out)) == (2 if left_out == "RENEW" else 1):
            raise Refused(BackendUnavailable("the file is busy"))
        return real(self, statement, *rest)

    monkeypatch.setattr(Connection, "write", write)
    renewals = store.renew([*held, (waiter, None)], 2.0)

    renewed = 3 if left_out == "RENEW" else 4
    assert [renewal.state for renewal in renewals] == ["HELD"] * renewed + ["UNKNOWN"] * (5 - renewed)
    assert renewals[-1].trouble == "the file is busy"


def test_a_batch_tells_each_claim_its_own(store):
    held, fence = take(store, "held")
    gone, gone_fence = take(store, "gone")
    store.release(gone, 2.0)
    evicted, evicted_fence = take(store, "evicted")
    store.evict("evicted", claim_id(evicted.token), 2.0)
    asked, asked_fence = take(store, "asked")
    store.annotate("asked", claim_id(asked.token), {"ask_release": True}, 2.0)
    waiter = claim("held")
    store.acquire(waiter, True, 2.0)
    stale = (held, fence + 1)

    renewals = store.renew(
        [
            (waiter, None),
            (held, fence),
            (gone, gone_fence),
            (evicted, evicted_fence),
            (asked, asked_fence),
            stale,
            (held, None),
        ],
        2.0,
    )

    assert [(renewal.state, renewal.why) for renewal in renewals] == [
        ("WAITING", ""),
        ("HELD", ""),
        ("LOST", "absent"),
        ("LOST", "evicted"),
        ("HELD", ""),
        ("LOST", "fence"),
        ("OFFERED", ""),
    ]
    assert renewals[4].requests == {"ask_release": True}
    assert renewals[1].requests is None


def test_a_healthy_store_checks_out(store):
    findings = {finding.check: finding for finding in store.check(2.0)}

    assert {
        "file",
        "files",
        "file system",
        "free space",
        "pulses",
        "log",
        "layout",
        "clock",
        "scope",
    } == findings.keys()
    assert {finding.severity for finding in findings.values()} == {"ok"}
    assert findings["file system"].message.startswith("the database is on ")
    assert re.fullmatch(
        r"the database has layout 2(, made by lockkit \S+ on \S+)?", findings["layout"].message
    )


def test_a_file_made_anew_and_a_clock_behind_its_fences_are_reported(url):
    clock = StillClock()
    store = open_store(url, OpenOptions(clock=clock))
    take(store)
    clock.epoch -= 3600
    assert {f.check: f.severity for f in store.check(2.0)}["clock"] == "warning"
    Path(file_of(url)).unlink()

    assert {f.check: f.severity for f in store.check(2.0)}["files"] == "warning"
    store.close()


OLD_TRIGGER = """CREATE TRIGGER keep_fence AFTER DELETE ON entries BEGIN
    UPDATE entries SET since = old.fence WHERE namespace = '' AND since < old.fence; END"""
SPOILT = [
    "DELETE FROM entries",
    *[
        f"UPDATE entries SET {where}"
        for value in (2**61 - 2, 2**61 - 1, 2**61, 2**63 - 1, "1e300", "'x'", "x'00'", -5)
        for where in (f"since = {value} WHERE namespace = ''", f"fence = {value} WHERE name = 'b'")
    ],
    f"INSERT INTO meta VALUES ('anew', '{'[' * 20_000}')",
    "DROP TRIGGER keep_fence",
    "DROP VIEW high",
    f"DROP TRIGGER keep_fence; {OLD_TRIGGER}",
]


@pytest.mark.parametrize("at_rest", [True, False])
@pytest.mark.parametrize("spoil", SPOILT)
def test_what_somebody_spoilt_stops_nobody_elsewhere(url, spoil, at_rest):
    """No fence is given twice; and after at most one more release fences rise whatever the clock does."""
    clock = StillClock(look=0.001)
    with contextlib.ExitStack() as stores:
        store = stores.enter_context(contextlib.closing(open_store(url, OpenOptions(clock=clock))))
        _, fence = take(store, "a")
        take(store, "b")
        if at_rest:
            stores.close()
        with contextlib.closing(sqlite3.connect(file_of(url), isolation_level=None)) as database:
            database.executescript(spoil)
            database.execute("DELETE FROM entries WHERE name <> ''")
        if at_rest:
            store = stores.enter_context(contextlib.closing(open_store(url, OpenOptions(clock=clock))))
        clock.epoch += 1
        fences = []
        for _ in range(4):
            one, later = take(store, "a")
            fences.append(later)
            assert store.release(one, 2.0) == RELEASED
        assert len({*fences}) == 4
        assert fence < fences[-2] < fences[-1] < 2**61
        assert {found.severity for found in store.check(2.0)} <= {"ok", "warning"}
        if at_rest or "DROP" not in spoil:
            clock.epoch -= 3600
            assert take(store, "a")[1] > fences[-1]


@pytest.mark.parametrize("fence", [2**61, 2**63 - 1, -5, "'x'"])
def test_nobody_waits_behind_a_claim_whose_fence_is_none(store, url, fence):
    take(store, "a")
    edit(url, f"UPDATE entries SET fence = {fence} WHERE name = 'a'")
    with pytest.raises(Refused, match="damaged"):
        store.acquire(claim("a", wait=True), True, 2.0)
    [damaged] = store.inspect("a", 2.0).claims
    assert store.evict("a", damaged.claim_id, 2.0, now=True)
    take(store, "a")


def test_a_trigger_that_never_ends_keeps_no_call_longer_than_its_time(store, url):
    endless = "WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM t) SELECT x FROM t"
    edit(url, f"CREATE TRIGGER bad BEFORE INSERT ON entries BEGIN SELECT count(*) FROM ({endless}); END")
    began = time.monotonic()
    with pytest.raises(Refused, match="did not end in time"):
        store.acquire(claim(), True, 0.5)
    assert time.monotonic() < began + AT_ONCE
    edit(url, "DROP TRIGGER bad")
    take(store)


def test_what_follows_from_the_tables_is_made_once(url):
    """An older version's views and trigger are replaced when no other process has the file open."""
    open_store(url, OpenOptions()).close()
    schema = "SELECT sql FROM sqlite_schema WHERE name IN ('keep_fence', 'high', 'claims')"
    with contextlib.closing(sqlite3.connect(file_of(url), isolation_level=None)) as database:
        assert {each for (each,) in database.execute(schema)} == {*layout.DERIVED}
        database.executescript(f"DROP TRIGGER keep_fence; {OLD_TRIGGER}")
        ((before,),) = database.execute("PRAGMA schema_version")
    for changes in (True, False):
        open_store(url, OpenOptions()).close()
        with contextlib.closing(sqlite3.connect(file_of(url), isolation_level=None)) as database:
            assert {each for (each,) in database.execute(schema)} == {*layout.DERIVED}
            ((after,),) = database.execute("PRAGMA schema_version")
        assert (after > before) == changes
        before = after


def test_it_declares_what_it_is():
    assert CAPABILITIES.scope == "user"
    assert CAPABILITIES.process_bound
    assert CAPABILITIES.fence == "clock"


# -- in as few statements as possible ------------------------------------------------------------------------


@pytest.fixture
def ran(monkeypatch):
    """The names of the statements that were run."""
    names = {text: name for name, text in vars(statements).items() if isinstance(text, str)}
    told = []
    for verb in ("write", "read"):
        real = getattr(Connection, verb)

        def noted(self, sql, *rest, real=real):
            told.append(names.get(sql, sql))
            return real(self, sql, *rest)

        monkeypatch.setattr(Connection, verb, noted)
    return told


def test_a_ring_that_comes_before_the_watch_is_kept_for_it(store, url, peer, watch):
    """Between answer and watch, the blocker is released: by another process, and by a thread of this one."""
    other = peer()
    other("acquire", "a")
    mine, first = claim(), claim()
    answer, next_answer = store.acquire(first, True, 2.0), store.acquire(mine, True, 2.0)
    watch(claim("b"), Queued(0), lambda: None)  # somebody listens to the bell
    other("release", "a")
    time.sleep(0.1)
    woken = threading.Event()
    watch(first, answer, woken.set)
    assert woken.wait(AT_ONCE)

    assert isinstance(store.acquire(first, False, 2.0), Granted)
    assert store.release(first, 2.0) == RELEASED
    woken = threading.Event()
    watch(mine, next_answer, woken.set)
    assert woken.wait(AT_ONCE)


def test_a_ring_is_kept_until_somebody_listens(store, peer, watch):
    other = peer()
    other("acquire", "a")
    mine = claim()
    answer = store.acquire(mine, True, 2.0)
    other("release", "a")
    woken = threading.Event()
    watch(mine, answer, woken.set)
    assert woken.wait(AT_ONCE)


def test_who_died_before_the_watch_wakes_at_once(store, peer, watch):
    other = peer()
    other("acquire", "a")
    mine = claim()
    answer = store.acquire(mine, True, 2.0)
    other.kill()
    woken = threading.Event()
    watch(mine, answer, woken.set)
    assert woken.wait(AT_ONCE)


def test_where_a_client_waited_a_moment_ago_it_queues_up_at_once(store, ran):
    one, _ = take(store)
    two, three = claim(), claim()
    store.acquire(two, True, 2.0)
    assert ran == ["INSERT_HELD", "INSERT_HELD", "INSERT_WAITING", "BEHIND"]
    ran.clear()
    assert isinstance(store.acquire(three, True, 2.0), Queued)
    assert ran == ["INSERT_WAITING", "BEHIND"]
    ran.clear()
    assert store.release(one, 2.0) == RELEASED
    assert ran == ["REMOVE", "FRONT"]
    ran.clear()
    assert isinstance(store.acquire(two, False, 2.0), Granted)
    assert ran == ["GRANT_FIRST"]


def test_and_holds_at_once_if_nobody_is_left_there(store):
    one, _ = take(store)
    two = claim()
    store.acquire(two, True, 2.0)
    for each in (two, one):
        assert store.release(each, 2.0) == RELEASED
    again, fence = take(store)
    assert store.release(again, 2.0) == RELEASED
    assert take(store)[1] > fence


def test_after_a_moment_it_looks_first_again(store, ran, monkeypatch):
    monkeypatch.setattr(crowds, "_MOMENT", 0.0)
    take(store)
    store.acquire(claim(), True, 2.0)
    ran.clear()
    store.acquire(claim(), True, 2.0)
    assert ran[0] == "INSERT_HELD"


def the_first(store, **terms):
    """A claim that waits behind another, and is woken."""
    ahead, _ = take(store, **terms)
    mine = claim(**terms)
    assert isinstance(store.acquire(mine, True, 2.0), Queued)
    return ahead, mine


def test_a_claim_that_is_not_the_first_is_not_granted(store):
    ahead, mine = the_first(store)
    assert isinstance(store.acquire(mine, False, 2.0), Queued)
    behind = claim()
    store.acquire(behind, True, 2.0)
    store.release(ahead, 2.0)
    assert isinstance(store.acquire(behind, False, 2.0), Queued)
    assert isinstance(store.acquire(mine, False, 2.0), Granted)


def test_nor_is_the_first_while_somebody_holds_behind_it(store, url):
    """As after a resize to less than what is held."""
    ahead, mine = the_first(store)
    behind = claim()
    store.acquire(behind, True, 2.0)
    store.release(ahead, 2.0)
    with contextlib.closing(sqlite3.connect(file_of(url))) as file:
        file.execute("UPDATE entries SET state = 1 WHERE token = ?", (behind.token,))
        file.commit()
    assert isinstance(store.acquire(mine, False, 2.0), Queued)


def test_nor_is_it_once_it_was_resized_evicted_or_has_lapsed(store, url):
    changes = ("capacity = 2", "evicted = 1", "deadline = 1")
    for change in changes:
        ahead, mine = the_first(store)
        store.release(ahead, 2.0)
        with contextlib.closing(sqlite3.connect(file_of(url))) as file:
            file.execute(f"UPDATE entries SET {change} WHERE token = ?", (mine.token,))
            file.commit()
        assert store_grants_first(store, mine) == 0, change
        store.evict("a", claim_id(mine.token), 2.0, now=True)


def test_nor_is_it_before_what_has_lapsed_is_removed_or_where_a_newer_version_wrote(store, url):
    for change in ("deadline = 1", "min_reader = 99"):
        ahead, mine = the_first(store)
        behind = claim()
        store.acquire(behind, True, 2.0)
        store.release(ahead, 2.0)
        with contextlib.closing(sqlite3.connect(file_of(url))) as file:
            file.execute(f"UPDATE entries SET {change} WHERE token = ?", (behind.token,))
            file.commit()
        assert store_grants_first(store, mine) == 0, change
        with contextlib.closing(sqlite3.connect(file_of(url))) as file:
            file.execute("DELETE FROM entries WHERE namespace <> ''")
            file.commit()


def store_grants_first(store, one):
    """How many claims the statement that needs no read grants."""
    opened = store._opened
    fence = opened.placed[one.token]
    end = time.monotonic() + 2.0
    return acquiring._grant(opened, one, statements.GRANT_FIRST, fence, one.terms.capacity, end)[0]


def test_a_waiter_that_gives_up_leaves_nothing_behind_in_this_process(store):
    ahead, mine = the_first(store)
    assert store._opened.placed
    store.evict("a", claim_id(mine.token), 2.0)
    assert isinstance(store.acquire(mine, False, 2.0), Lapsed)
    assert not store._opened.placed
    mine = claim()
    store.acquire(mine, True, 2.0)
    store.release(mine, 2.0)
    store.release(ahead, 2.0)
    assert not store._opened.placed


def test_who_is_woken_is_found_in_a_long_prefix_too(store, watch):
    terms = {"capacity": 6, "kind": "semaphore"}
    held = [take(store, **terms)[0] for _ in range(6)]
    waits = [claim(**terms) for _ in range(3)]
    events = [threading.Event() for _ in waits]
    for one, woken in zip(waits, events, strict=True):
        watch(one, store.acquire(one, True, 2.0), woken.set)
    store.release(held[0], 2.0)
    assert events[0].wait(AT_ONCE)
    assert not events[2].is_set()
