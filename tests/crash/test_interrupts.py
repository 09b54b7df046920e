"""Ctrl-C at any bytecode: a signal handler that raises, some thousand times, in the middle of acquire and release.

What an interrupted acquisition leaves is removed in the background at once. The one thing that may stay, until its
validity ends, is a lease that was handed out and then dropped unreleased because the signal hit the caller's own frame.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

STORM = """
import gc, random, signal, sys, time, warnings
import lockkit

warnings.simplefilter("ignore", ResourceWarning)
url, seed = sys.argv[1], int(sys.argv[2])
rng = random.Random(seed)
client, observer = lockkit.connect(url), lockkit.connect(url)
lock = client.lock("storm", ttl=1.0, timeout=5)
lock.acquire().release()
observer.inspect("storm")


class Hit(BaseException):
    pass


def hit(*_):
    raise Hit


signal.signal(signal.SIGALRM, hit)
hits = 0
end = time.monotonic() + 4.0
while time.monotonic() < end:
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, rng.uniform(5e-6, 1.5e-3))
            for _ in range(20):
                with lock.acquire():
                    pass
        except lockkit.AcquireTimeout as error:
            raise SystemExit(f"the lock was leaked: {error}")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except Hit:
        hits += 1
signal.signal(signal.SIGALRM, signal.SIG_IGN)
gc.collect()
end = time.monotonic() + 3.0
while observer.inspect("storm").claims and time.monotonic() < end:
    time.sleep(0.02)
left = observer.inspect("storm").claims
assert not left, left
stats = client.stats()
ends = sum(stats[kind] for kind in ("acquired", "busy", "timeouts", "cancelled", "failed"))
assert stats["acquired"] > 100, stats
assert hits > 100, hits
with lock.acquire(timeout=1.0) as lease:  # and everything still works
    assert lease.valid()
client.close()
print("survived", hits, stats["acquired"])
"""


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("store", ["memory:", "sqlite"])
def test_l4_interrupts_at_any_bytecode_leave_nothing_behind(store: str, seed: int, tmp_path: Path) -> None:
    url = store if store == "memory:" else f"sqlite:{tmp_path}/storm.db"
    done = subprocess.run(
        [sys.executable, "-c", STORM, url, str(seed)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "survived" in done.stdout
