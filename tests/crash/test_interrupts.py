"""Ctrl-C at any bytecode: a signal handler that raises, some thousand times, in acquire and release.

Leftovers of an interrupted acquisition are removed in the background at once. Only a lease that was handed
out, then dropped because the signal hit the caller's own frame, may stay until its validity ends.
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

STORM = """
import collections, gc, random, signal, sys, time, warnings
import lockkit

warnings.simplefilter("ignore", ResourceWarning)
url, form, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
rng = random.Random(seed)
cleaned = collections.Counter()


class Cleaner:
    @lockkit.hookimpl
    def lockkit_cleanup(self, context):
        cleaned[context.claim_id] += 1


client = lockkit.connect(url, plugins=[Cleaner()] if form == "release" else [])
observer = lockkit.connect(url)
lock = client.lock("storm", ttl=1.0, timeout=30, reentrant=form == "levels")
lock.acquire().release()
observer.inspect("storm")


class Hit(BaseException):
    pass


def hit(*_):
    raise Hit


def use():
    if form == "short":
        with lock:
            pass
    elif form == "levels":
        with lock, lock:
            pass
    else:
        with lock.acquire() as kept:
            pass


def released():
    signal.setitimer(signal.ITIMER_REAL, 0)
    lease = lock.acquire()
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-6, 4e-4))
            lease.release()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        report = lease.release()
        assert report.outcome in ("RELEASED", "LOST"), report
        assert cleaned[lease.claim_id] == 1, (cleaned[lease.claim_id], report)


signal.signal(signal.SIGALRM, hit)
hits = 0
while hits < 150:
    if form == "release":
        try:
            released()
        except Hit:
            hits += 1
        continue
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, rng.uniform(5e-6, 1.5e-3))
            for _ in range(20):
                use()
        except lockkit.AcquireTimeout as error:
            raise SystemExit(f"the lock was leaked: {error}")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except Hit:
        hits += 1
signal.signal(signal.SIGALRM, signal.SIG_IGN)
gc.collect()
end = time.monotonic() + 30.0
while observer.inspect("storm").claims and time.monotonic() < end:
    time.sleep(0.02)
left = observer.inspect("storm").claims
assert not left, left
stats = client.stats()
ends = sum(stats[kind] for kind in ("acquired", "busy", "timeouts", "cancelled", "failed"))
assert stats["acquired"] > 0, stats
with lock.acquire(timeout=30) as lease:  # and everything still works
    assert lease.valid()
client.close()
print("survived", hits, stats["acquired"])
"""


@pytest.mark.parametrize("form", ["lease", "short", "levels", "release"])
@pytest.mark.parametrize("store", ["memory:", "sqlite"])
def test_l4_interrupts_at_any_bytecode_leave_nothing_behind(store: str, form: str, tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    url = store if store == "memory:" else f"sqlite:{tmp_path}/storm.db"
    done = subprocess.run(
        [sys.executable, "-c", STORM, url, form, str(seed)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "survived" in done.stdout
