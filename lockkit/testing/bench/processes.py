"""The benches of whole processes: a stalled one, with many holds, with many waiters, and short ones."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from lockkit.testing.bench.figures import Figure
from lockkit.testing.bench.rounds import interleaved, timed
from lockkit.testing.bench.trial import MEMORY, NAMESPACE, Trial, connected
from lockkit.testing.bench.workers import Role, started

__all__ = ["crowds", "held", "stall", "startup"]

_STALL = 1.5
"""Seconds for which the stalled process keeps its GIL."""


def stall(trial: Trial) -> list[Figure]:
    """Acquire + release in this process, while another on the same store keeps its GIL for 1.5 s."""
    with started(_stall, trial.url, trial.folder) as worker, connected(trial.url, trial.folder) as client:
        worker.recv()
        worker.send(None)
        lock = client.lock("elsewhere")
        taken = []
        end = time.monotonic() + _STALL * (2 if trial.quick else 6)
        while time.monotonic() < end:
            taken.append(timed(lambda: lock.acquire().release()) * 1e3)
            time.sleep(0.002)
    what = "acquire + release beside a GIL stalled for 1.5 s"
    return [
        trial.figure(f"{what}, median", median(taken), "ms"),
        trial.figure(f"{what}, worst of {len(taken)}", max(taken), "ms"),
    ]


def _stall(url: str, folder: Path) -> Role:
    """Acquire and release without pause on one thread, while another holds the GIL for seconds at a time."""
    usleep = ctypes.PyDLL(None).usleep  # a PyDLL call keeps the GIL
    with connected(url, folder) as client, client.lock("kept").acquire():
        lock = client.lock("stalled")

        def work() -> None:
            while True:
                lock.acquire().release()

        threading.Thread(target=work, daemon=True).start()
        time.sleep(0.2)
        yield None
        while True:
            usleep(int(_STALL * 1e6))
            time.sleep(0.02)


def held(trial: Trial) -> list[Figure]:
    """Ten thousand held locks: the cost of their heartbeat, and their memory.

    Raises:
        RuntimeError: Some of them were lost meanwhile, so the figures mean nothing.
    """
    count, ttl, seconds = (1000, 12.0, 10.0) if trial.quick else (10_000, 30.0, 30.0)
    with started(_hold, trial.url, trial.folder, count, ttl) as worker:
        worker.recv()
        before = trial.requests()
        worker.send(seconds)
        share, calls, renewed, valid = worker.recv()
        sent = trial.requests() - before
    with started(_weigh, trial.url, trial.folder, count // 5) as worker:
        weight = worker.recv() / 1024
    if valid != count:
        raise RuntimeError(f"only {valid} of {count} held locks are still valid: the figures mean nothing")
    beats = renewed / count
    what = f"heartbeat of {count:,} held locks, ttl {ttl:g} s"
    figures = [
        trial.figure(f"{what}: CPU of one core", share * 100, "%"),
        trial.figure(f"{what}: calls to renew them all", calls / beats if beats else 0.0, "calls"),
        trial.figure("memory of one held lock", weight, "KiB"),
    ]
    if trial.counted and beats:
        figures.append(trial.figure(f"{what}: requests to renew them all", sent / beats, "calls"))
    return figures


def _hold(url: str, folder: Path, count: int, ttl: float) -> Role:
    """Hold locks. Yields the heartbeat's share of a core, its calls and renewals, and the valid locks."""
    with connected(url, folder) as client:
        backend: Any = client.driver().backend
        renew, sizes = backend.renew, list[int]()

        def counted(beats: Sequence[object], *rest: object) -> object:
            sizes.append(len(beats))
            return renew(beats, *rest)

        backend.renew = counted
        leases = [client.lock(f"held/{at}", ttl=ttl).acquire() for at in range(count)]
        # Some stores do more work for a claim after a moment, which is not part of the heartbeat.
        time.sleep(0.5)
        seconds = yield None
        sizes.clear()
        used, began = time.process_time(), time.monotonic()
        time.sleep(seconds)
        share = (time.process_time() - used) / (time.monotonic() - began)
        # The releases are not measured: the process is killed, which the store notices.
        yield share, len(sizes), sum(sizes), sum(lease.valid() for lease in leases)


def _weigh(url: str, folder: Path, count: int) -> Role:
    """Yields the bytes of memory of one held lock: of the lock, its claim, its lease and the rest."""
    with connected(url, folder) as client:
        kept = [client.lock(f"warm/{at}").acquire() for at in range(50)]
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        kept += [client.lock(f"held/{at}").acquire() for at in range(count)]
        gc.collect()
        yield (tracemalloc.get_traced_memory()[0] - before) / count


def crowds(trial: Trial) -> list[Figure]:
    """The requests of holders and waiters, each a client, for one hand-off. Only a server can count them."""
    figures = []
    for waiters in (2, 10, 100):
        with started(_crowd, trial.url, trial.folder, waiters) as worker:
            worker.recv()
            counts = []
            for pause in (1.0 if trial.quick else 5.0, 0.0):
                sent = trial.requests()
                worker.send(None)
                counts.append((sent, worker.recv()))
                time.sleep(pause)
        (sent, handed), (last, all_handed) = counts
        share = (last - sent) / (all_handed - handed)
        figures.append(trial.figure(f"requests per hand-off, {waiters} waiters", share, "calls"))
    return figures


def _crowd(url: str, folder: Path, waiters: int) -> Role:
    """Keep one holder and some waiters on one name, each with its client. Yields the hand-offs so far."""
    grants = [0] * (waiters + 1)

    def work(at: int) -> None:
        with connected(url, folder) as client:
            lock = client.lock("crowd")
            while True:
                lock.acquire().release()
                grants[at] += 1

    for at in range(len(grants)):
        threading.Thread(target=work, args=(at,), daemon=True).start()
    while not all(grants):
        time.sleep(0.05)
    yield None
    while True:
        yield sum(grants)


def startup(trial: Trial) -> list[Figure]:
    """The time of ``import lockkit`` over a bare Python, and of ``lockkit run x -- true`` over ``true``."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "LOCKKIT_URL": trial.url,
        "LOCKKIT_NAMESPACE": NAMESPACE,
        "LOCKKIT_STATE_DIR": str(trial.folder),
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed lockkit is compiled
    python = (sys.executable, "-c")
    first = "import lockkit; lockkit.connect('memory:').lock('a').acquire().release()"
    command = "from lockkit.cli.script import main; main()"
    lines = {"true": ("true",), "run": (*python, command, "run", "bench", "--", "true")}
    lines |= {"python": (*python, "pass"), "import": (*python, "import lockkit"), "first": (*python, first)}
    start = partial(subprocess.run, env=environment, cwd=trial.folder, check=True, stdin=subprocess.DEVNULL)
    measures = {name: partial(timed, partial(start, line)) for name, line in lines.items()}
    taken = interleaved(measures, 5 if trial.quick else 21)

    def over(name: str, bare: str) -> float:
        return median(one - other for one, other in zip(taken[name], taken[bare], strict=True)) * 1e3

    return [
        trial.figure("bare interpreter", median(taken["python"]) * 1e3, "ms", "Python"),
        trial.figure("import lockkit, over a bare Python", over("import", "python"), "ms", "lockkit"),
        trial.figure(
            "import, connect and the first lock, over a bare Python", over("first", "python"), "ms", MEMORY
        ),
        trial.figure("lockkit run x -- true, over true", over("run", "true"), "ms"),
    ]
