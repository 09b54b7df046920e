"""A storm of signals in processes that compete for one lock: no two of them are in it at once, and none leaves it held.

The witness is a lock of the kernel on a file (flock(2)), of which lockkit knows nothing. With ``--lockkit-whole`` 10,000 grants.
"""

from __future__ import annotations

import importlib.util
import os
import random
import subprocess
import sys

import pytest

from lockkit.testing.processes import installed
from support.servers.redis import RedisServer

STORM = """
import fcntl, gc, os, random, signal, sys, threading, time, warnings
import lockkit

warnings.simplefilter("ignore", ResourceWarning)
url, witness, seed, grants = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
rng = random.Random(seed)
threads = 2 if url.startswith("memory") else 1
client = lockkit.connect(url)
lock = client.lock("storm", ttl=60, timeout=50)  # far longer than a lock may stay that nobody has
swallowed, seen, two, quiet = [], [0, 0], [], []
sys.unraisablehook = lambda what: swallowed.append(str(what.object))


class Hit(BaseException):
    pass


def hit(*_):
    seen[1] += 1
    if not quiet:
        raise Hit


def inside(file):
    try:
        quiet.append(1)  # a signal that strikes here would leave the witness as it is
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        two.append(time.time())
    else:
        seen[0] += 1
        fcntl.flock(file, fcntl.LOCK_UN)
    finally:
        quiet.clear()


def beside():
    "Another holder in this process, which no signal strikes."
    file = open(witness, "w")
    while seen[0] < grants:
        with lock:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                two.append(time.time())
            else:
                seen[0] += 1
                fcntl.flock(file, fcntl.LOCK_UN)


file = open(witness, "w")
lock.acquire().release()
others = [threading.Thread(target=beside, daemon=True) for _ in range(threads - 1)]
for thread in others:
    thread.start()
signal.signal(signal.SIGALRM, hit)
while seen[0] < grants or seen[1] < grants // 4:
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, rng.uniform(5e-6, 2e-3))
            for _ in range(20):
                with lock:
                    inside(file)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except Hit:
        pass
signal.signal(signal.SIGALRM, signal.SIG_IGN)
for thread in others:
    thread.join(60)
gc.collect()
assert not two, f"two were in the lock: {two}"
assert not [one for one in swallowed if "lease" in one.lower()], swallowed
if threads > 1 or url.startswith("memory"):
    end = time.monotonic() + 30.0
    while client.inspect("storm").claims and time.monotonic() < end:
        time.sleep(0.02)
    assert not client.inspect("storm").claims
client.close()
print("granted", seen[0], "struck", seen[1])
"""


@pytest.fixture(params=["memory", "sqlite", "redis"])
def url(request, tmp_path):
    if request.param == "redis":
        if not installed("redis-server") or importlib.util.find_spec("redis") is None:
            pytest.skip("there is no Redis here")
        with RedisServer() as server:
            yield server.url()
        return
    yield "memory:" if request.param == "memory" else f"sqlite:{tmp_path}/storm.db"


def test_s2_l4_in_a_storm_of_signals_no_two_hold_and_nothing_stays_held(url, tmp_path, request):
    grants = 10_000 if request.config.getoption("--lockkit-whole", default=False) else 300
    seed = random.randrange(1 << 30)
    processes = 1 if url == "memory:" else 2
    print(f"seed {seed}")
    run = [sys.executable, "-c", STORM, url, str(tmp_path / "witness")]
    storms = [
        subprocess.Popen(
            [*run, str(seed + each), str(grants // processes)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"LOCKKIT_STATE_DIR": str(tmp_path)},
        )
        for each in range(processes)
    ]
    try:
        said = [storm.communicate(timeout=60 + grants / 5)[0] for storm in storms]
    finally:
        for storm in storms:
            storm.kill()
    print(*said)
    assert [storm.returncode for storm in storms] == [0] * processes, said
    if processes > 1:  # nothing is left for a newcomer to wait for
        left = "import sys, lockkit; print(lockkit.connect(sys.argv[1]).lock('storm').acquire(timeout=5).release().outcome)"
        done = subprocess.run(
            [sys.executable, "-c", left, url], capture_output=True, text=True, check=False, timeout=60
        )
        assert done.stdout == "RELEASED\n", done.stderr
