"""A storm of processes on the embedded store while its files are removed at random moments."""

from __future__ import annotations

import logging
import os
import random
import shutil
import time
from pathlib import Path

import lockkit
from lockkit.errors import LockkitError
from lockkit.testing.children import Child

TTL = 0.9
PROCESSES, SECONDS = 4, 14.0
CALM = 2 * TTL
"""Seconds between two removals: the holds of one are over before the next."""


def told(parent):
    """Whether the parent has said anything."""
    try:
        return bool(parent.read(0.0))
    except TimeoutError:
        return False


def hold_again_and_again(url, seed):
    """Take the lock, hold on for a moment or for three ttls, and note its validity: (from, to, fence)."""

    def play(parent):
        logging.disable(logging.CRITICAL)
        rng = random.Random(seed)
        client = None
        holds, failures = [], []
        while not told(parent):
            if client is not None and rng.random() < 0.5:  # removed files are seen by newcomers only
                client.close()
                client = None
            try:
                client = client or lockkit.connect(url)
                lease = client.lock("x", ttl=TTL).acquire(timeout=1.0)
            except TimeoutError:
                continue
            except LockkitError as error:
                failures.append([time.clock_gettime(time.CLOCK_BOOTTIME), repr(error)])
                continue
            start = last = time.clock_gettime(time.CLOCK_BOOTTIME)
            until = start + rng.choice((0.0, 0.02, 3 * TTL))
            while (now := time.clock_gettime(time.CLOCK_BOOTTIME)) < until and lease.valid():
                last = now
                time.sleep(0.001)
            lease.release()
            holds.append([start, last, lease.fence])
        if client is not None:
            client.close()
        return [holds, failures]

    return Child(play)


def test_s3_an_overlap_after_a_removal_ends_with_the_validity_of_the_last_beat_before_it(tmp_path):
    """The next beat finds out a removal; without one, validity runs out. Else both would hold for ever."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    path = folder / "locks.db"
    children = [hold_again_and_again(f"sqlite:{path}", seed + number) for number in range(PROCESSES)]
    removed = []
    end = time.monotonic() + SECONDS
    try:
        while time.monotonic() < end:
            time.sleep(CALM * rng.uniform(1.0, 1.5))
            before = time.clock_gettime(time.CLOCK_BOOTTIME)
            damage(rng, path)
            removed.append((before, time.clock_gettime(time.CLOCK_BOOTTIME)))
        time.sleep(2 * CALM)  # a busy machine needs more than one to hold again after the last removal
        for child in children:
            child.tell("end")
        heard = [child.hear() for child in children]
    finally:
        for child in children:
            child.close()

    holds = sorted(hold for holds, _ in heard for hold in holds)
    assert len(removed) >= 4
    for _, at in removed:
        assert any(start > at for start, _, _ in holds), "nobody held after a removal"
    for position, (start, last, fence) in enumerate(holds):
        for later, until, other in holds[position + 1 :]:
            assert other > fence or later <= last, "fences rise"
            if later >= last:
                continue
            shared = min(last, until)
            causes = [over for at, over in removed if start - TTL <= at <= shared]
            assert causes, f"two held together without a removal: {start} to {shared}"
            assert shared <= causes[-1] + TTL, (
                f"they held together for {shared - causes[-1]:.2f} s after the removal"
            )
    last_failure = max((at for _, failures in heard for at, _ in failures), default=0.0)
    assert last_failure < removed[-1][1] + CALM, [failures for _, failures in heard]


def damage(rng, path):
    """Remove some of the files, all, or the whole folder."""
    kind = rng.randrange(8)
    if kind == 0:
        shutil.rmtree(path.parent, ignore_errors=True)
    elif kind == 1:
        path.parent.rename(path.parent.with_name(f"gone-{os.urandom(4).hex()}"))
    else:
        some = rng.sample(("", "-wal", "-shm"), rng.randint(1, 3)) if kind < 5 else ("-wal", "-shm")
        for suffix in some:
            Path(f"{path}{suffix}").unlink(missing_ok=True)
            time.sleep(rng.choice((0.0, 0.0005)))
