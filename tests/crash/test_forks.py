"""A signal handler that raises in the middle of os.fork(): CPython reports what its hooks raise, and goes on.

So whatever a hook did not come to do must not be missed, in the parent nor in the child.
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

STORM = """
import faulthandler, os, random, signal, sys, threading, time, warnings

# The hooks of logging itself are torn up to Python 3.12. These are those of 3.13.
register, os.register_at_fork = os.register_at_fork, lambda **_: None
import logging
os.register_at_fork = register
mutex = logging._lock
register(before=mutex.acquire, after_in_parent=mutex.release, after_in_child=mutex._at_fork_reinit)

import lockkit

warnings.simplefilter("ignore")
faulthandler.dump_traceback_later(90, exit=True)
url, seed = sys.argv[1], int(sys.argv[2])
rng = random.Random(seed)
sys.unraisablehook = lambda what: torn.append(what.object)
torn, wrong, counted, over = [], [], [], threading.Event()


class Hit(BaseException):
    pass


def hit(*_):
    counted.append(1)
    raise Hit


def works(name):
    "Lock and release in this thread, and in another one."
    def use():
        client.lock(name, ttl=30).acquire(timeout=40).release()
        good.append(name)

    good = []
    use()
    other = threading.Thread(target=use, daemon=True)
    other.start()
    other.join(60)
    return len(good) == 2


def forked(check):
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(30)
        good = False
        try:
            good = not check or works(f"child/{os.getpid()}")
        finally:
            os._exit(0 if good else 3)
    return pid


def beside(forks):
    while not over.is_set():
        try:
            client.lock(f"beside/{forks}", ttl=30).acquire(timeout=40).release()
            if forks:
                assert os.waitpid(forked(False), 0)[1] == 0
        except BaseException as error:
            wrong.append(repr(error))
            return


def reap():
    while True:
        try:
            pid, status = os.waitpid(-1, 0)
        except ChildProcessError:
            return
        if status:
            wrong.append(f"child {pid}: {status}")


client = lockkit.connect(url)
kept = client.lock("kept", ttl=6).acquire()  # more than a busy machine keeps the heartbeat from its turn
threads = [
    threading.Thread(target=beside, args=(forks,), daemon=True)
    for forks in (False, True)[: int(sys.argv[3])]]
for thread in threads:
    thread.start()
signal.signal(signal.SIGALRM, hit)
for round in range(250):
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-6, 3e-3 if threads else 1e-3))
            while not counted:
                forked(round % 10 == 0)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except Hit:
        pass
    counted.clear()
    if not threads:
        reap()
signal.signal(signal.SIGALRM, signal.SIG_IGN)
over.set()
for thread in threads:
    thread.join(30)
    assert not thread.is_alive(), "a thread beside hangs"
reap()
for _ in range(2):
    assert works("after"), "another thread hangs"
    forked(True)
    reap()
left, end = kept.remaining(), time.monotonic() + 40
while kept.remaining() <= left:  # until it is renewed
    left = kept.remaining()
    assert time.monotonic() < end, "the heartbeat hangs"
    time.sleep(0.02)
assert kept.valid() and client.inspect("kept").claims
assert kept.release().outcome == "RELEASED"
client.close()
assert not wrong, wrong
print("survived", len(torn), {getattr(each, "__qualname__", each) for each in torn})
"""


@pytest.mark.parametrize("threads", [pytest.param(0, marks=pytest.mark.full), 2], ids=["alone", "threads"])
@pytest.mark.parametrize("store", ["memory:", "sqlite"])
def test_a_handler_that_raises_in_the_middle_of_a_fork_leaves_no_lock_taken(
    store: str, threads: int, tmp_path: Path
) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    url = store if store == "memory:" else f"sqlite:{tmp_path}/storm.db"
    done = subprocess.run(
        [sys.executable, "-c", STORM, url, str(seed), str(threads)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "survived" in done.stdout


STRUCK = """
import faulthandler, linecache, os, signal, sys, threading, warnings
from pathlib import Path
import lockkit

warnings.simplefilter("ignore")
faulthandler.dump_traceback_later(280, exit=True)
url = sys.argv[1]
sys.unraisablehook = lambda what: None
backends = {"sqlite": "lockkit_sqlite", "memory": "lockkit_memory"}
parts = ("lockkit/lib/forks.py", backends[url.partition(":")[0]])


class Hit(BaseException):
    pass


class Strikes:
    "Raises once, before the given place of the hooks: as a handler does, also where a function begins."
    def __init__(self, place):
        self.left = place
        self.where = "none"

    def __call__(self, frame, event, argument):
        if not any(part in frame.f_code.co_filename for part in parts):
            return None
        # No handler runs between the end of a with block and its __exit__, in the line of the "with".
        here = linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip()
        if event == "call" or (event == "line" and not here.startswith("with ")):
            self.left -= 1
            if self.left < 0:
                self.where = f"{frame.f_code.co_qualname}:{frame.f_lineno}"
                raise Hit
        return self


def works(name):
    def use():
        client.lock(name, ttl=30).acquire(timeout=40).release()
        good.append(name)

    good = []
    other = threading.Thread(target=use, daemon=True)
    other.start()
    other.join(60)
    use()
    return len(good) == 2


def child(place):
    signal.alarm(20)
    good = False
    try:
        good = works(f"child/{place}")
    finally:
        os._exit((1 if strikes.left < 0 else 0) if good else 3)


client = lockkit.connect(url)
kept = client.lock("kept", ttl=30).acquire()
place, struck = 0, True
while struck:
    strikes = Strikes(place)
    pid = None
    sys.settrace(strikes)
    try:
        pid = os.fork()
    finally:
        sys.settrace(None)
    if pid == 0:
        child(place)
    if not works("after"):
        faulthandler.dump_traceback(all_threads=True)
        raise SystemExit(f"struck at {strikes.where}, place {place} of the hooks: it hangs")
    ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert ended in (0, 1), f"struck at {strikes.where}, place {place} of the hooks: the child fails: {ended}"
    assert kept.valid(), place
    struck, place = strikes.left < 0 or ended == 1, place + 1
assert kept.release().outcome == "RELEASED"
client.close()
print("struck at", place - 1, "places")
"""


@pytest.mark.timeout(320)
@pytest.mark.parametrize("store", ["memory:", pytest.param("sqlite", marks=pytest.mark.full)])
def test_a_fork_hook_may_be_struck_at_any_line_of_it(store: str, tmp_path: Path) -> None:
    url = store if store == "memory:" else f"sqlite:{tmp_path}/struck.db"
    done = subprocess.run(
        [sys.executable, "-c", STRUCK, url], capture_output=True, text=True, timeout=300, check=False
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "struck at" in done.stdout


UNPREPARED = """
import ctypes, os, sys
import lockkit

client = lockkit.connect(sys.argv[1])
lease = client.lock("kept", ttl=30).acquire()
pid = ctypes.PyDLL(None).fork()
if pid == 0:
    try:
        client.lock("other", ttl=30).acquire(timeout=1)
    except lockkit.errors.BackendUnavailable as error:
        os._exit(1 if "it was forked while its parent had the file open" in str(error) else 2)
    finally:
        os._exit(3)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), lease.valid(), lease.release().outcome)
"""


def test_a_child_of_a_fork_that_was_not_prepared_is_refused_the_database(tmp_path: Path) -> None:
    """SQLite would take its parent's locks for its own, and the child would hold none."""
    done = subprocess.run(
        [sys.executable, "-c", UNPREPARED, f"sqlite:{tmp_path}/torn.db"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == ["1", "True", "RELEASED"], done.stdout + done.stderr


GATE = """
import os, sys, threading
from lockkit_etcd3 import forks


class Hit(BaseException):
    pass


class Connection:
    closed = 0

    def let_go(self):
        self.closed += 1


def strike(place):
    def trace(frame, event, argument):
        if not frame.f_code.co_filename.endswith(("lockkit/lib/forks.py", "lockkit_etcd3/forks.py")):
            return None
        left[0] -= 1
        if left[0] == -1:
            raise Hit
        return trace

    left = [place]
    sys.settrace(trace)
    return left


def passed():
    passes.append(gate.enter(1.0))
    gate.leave()


sys.unraisablehook = lambda what: None
gate, connection, place, left = forks.Gate(lambda: True), Connection(), 0, [-1]
gate.closes(connection)
gate.take_part()
while left[0] < 0:
    closed, passes, left = connection.closed, [], strike(place)
    try:
        pid = os.fork()
    finally:
        sys.settrace(None)
    if pid == 0:
        os._exit(0 if gate.enter(1.0) and not gate.torn else 3)
    assert connection.closed > closed, place
    other = threading.Thread(target=passed)
    other.start()
    other.join()
    assert passes == [True], f"struck at place {place}, the gate stays closed"
    assert os.waitpid(pid, 0)[1] == 0, place
    place += 1
print("struck at", place - 1, "places")
"""


def test_the_gate_before_grpc_opens_again_wherever_its_fork_hooks_are_struck() -> None:
    done = subprocess.run(
        [sys.executable, "-c", GATE], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "struck at" in done.stdout
