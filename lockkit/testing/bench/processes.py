"""The benches with several processes: the hand-off, a stalled process, many held locks, and the start of programs."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median

from lockkit.testing.bench.client import NAMESPACE, connected
from lockkit.testing.bench.contender import Contender
from lockkit.testing.bench.figures import Figure
from lockkit.testing.bench.floors import FLOCK, HERE, MEMORY, opener
from lockkit.testing.bench.rounds import interleaved, percentile
from lockkit.testing.bench.workers import STALL, Worker, started

__all__ = ["handed_over", "handoff", "held", "stall", "startup"]

_HANDOFF, _BUSY, _STALL = 2.0, 2.0, 50.0
_WEIGHT = 4.0
_IMPORT, _RUN = 40.0, 120.0


def handoff(
    folder: Path, url: str, store: str, *, quick: bool, beside: Sequence[str] = (), contenders: str = HERE
) -> list[Figure]:
    """The time from just before the release in one process until another, which waits, has the lock; and the CPU time of the wait."""
    figures = handed_over(folder, url, store, FLOCK, quick=quick, beside=beside, contenders=contenders)
    return [
        each.at_most(_HANDOFF) if (each.contender, each.what) == (store, "median") else each
        for each in figures
    ]


def handed_over(
    folder: Path,
    url: str,
    store: str,
    floor: str,
    *,
    quick: bool,
    beside: Sequence[str] = (),
    contenders: str = HERE,
) -> list[Figure]:
    """The hand-offs of the floor, the store and the contenders ``beside``, in turns. One process waits at any time."""
    names = [floor, store, *beside]
    rounds, long_wait = (8, 1.0) if quick else (60, 3.0)
    with ExitStack() as stack:
        made = stack.enter_context(opener(contenders)(names, folder, url))
        workers = {
            name: stack.enter_context(started("waiter", name, str(folder), url, contenders)) for name in names
        }
        for worker in workers.values():
            worker.hear()

        def once(name: str) -> float:
            # So that no poller is in step.
            return _hand(made[name], workers[name], random.uniform(0.02, 0.12))[0]

        taken = interleaved({name: partial(once, name) for name in names}, rounds)
        busy = {name: _hand(made[name], workers[name], long_wait)[1] / long_wait * 100 for name in names}
    figures = []
    for name in names:
        middle, worst = median(taken[name]) * 1e3, percentile(taken[name], 0.99) * 1e3
        figures.append(Figure("hand-off", name, "median", middle, "ms"))
        figures.append(Figure("hand-off", name, "p99", worst, "ms"))
        cost = Figure("hand-off", name, "CPU of the waiter, of one core", busy[name], "%")
        figures.append(cost.at_most(_BUSY) if name == store else cost)
    return figures


def _hand(contender: Contender, worker: Worker, wait: float) -> tuple[float, float]:
    """Hold the lock, let the worker wait, and release it. Returns the seconds of the hand-off, and the CPU seconds of the worker."""
    held = contender.acquire()
    worker.tell("go")
    time.sleep(wait)
    began = time.monotonic()
    contender.release(held)
    answer = worker.hear()
    return answer["at"] - began, answer["cpu"]


def stall(folder: Path, url: str, store: str, *, quick: bool) -> list[Figure]:
    """Acquire + release in this process, while another process on the same store keeps its GIL for 1.5 s at a time."""
    until = STALL * (2 if quick else 6)
    with (
        started("staller", url, str(folder)) as worker,
        connected(url, folder) as client,
    ):
        worker.hear()
        lock = client.lock("elsewhere")
        taken = []
        end = time.monotonic() + until
        while (began := time.monotonic()) < end:
            lock.acquire().release()
            taken.append(time.monotonic() - began)
            time.sleep(0.002)
    name, what = store, "acquire + release beside a GIL stalled for 1.5 s"
    return [
        Figure("stall", name, f"{what}, median", median(taken) * 1e3, "ms"),
        Figure("stall", name, f"{what}, worst of {len(taken)}", max(taken) * 1e3, "ms").at_most(_STALL),
    ]


def held(
    folder: Path, url: str, store: str, *, quick: bool, requests: Callable[[], int] | None = None
) -> list[Figure]:
    """Ten thousand held locks: the cost of their heartbeat, and their memory. ``requests`` returns the number of a server's requests so far."""
    count, ttl, seconds = (1000, 12.0, 10.0) if quick else (10_000, 30.0, 30.0)
    with started("holder", url, str(folder), str(count), str(ttl), str(seconds)) as worker:
        worker.hear()
        before = requests() if requests else 0
        cost = worker.hear()
        sent = requests() - before if requests else 0
    with started("weigher", url, str(folder), str(count // 5)) as worker:
        weight = worker.hear()["bytes"] / 1024
    if cost["valid"] != count:
        raise RuntimeError(
            f"only {cost['valid']} of {count} held locks are still valid: the figures mean nothing"
        )
    share = cost["cpu"] / cost["wall"] * 100
    beats = cost["renewed"] / count
    calls = cost["calls"] / beats if beats else 0.0
    what = f"heartbeat of {count:,} held locks, ttl {ttl:g} s"
    figures = [
        Figure("held", store, f"{what}: CPU of one core", share, "%"),
        Figure("held", store, f"{what}: calls to renew them all", calls, "calls"),
        Figure("held", store, "memory of one held lock", weight, "KiB").at_most(_WEIGHT),
    ]
    if requests and beats:
        figures.append(Figure("held", store, f"{what}: requests to renew them all", sent / beats, "calls"))
    return figures


def startup(folder: Path, url: str, store: str, *, quick: bool) -> list[Figure]:
    """The time of ``import lockkit`` beyond that of a bare Python, and of ``lockkit run x -- true`` beyond that of ``true``."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "LOCKKIT_URL": url,
        "LOCKKIT_NAMESPACE": NAMESPACE,
        "LOCKKIT_STATE_DIR": str(folder),
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed lockkit is compiled

    def timed(*line: str) -> Callable[[], float]:
        def start() -> float:
            began = time.perf_counter()
            subprocess.run(line, env=environment, cwd=folder, check=True, stdin=subprocess.DEVNULL)
            return time.perf_counter() - began

        return start

    python = sys.executable
    command = "from lockkit.cli.script import main; main()"
    measures = {
        "python": timed(python, "-c", "pass"),
        "import": timed(python, "-c", "import lockkit"),
        "first": timed(
            python, "-c", "import lockkit; lockkit.connect('memory:').lock('a').acquire().release()"
        ),
        "true": timed("true"),
        "run": timed(python, "-c", command, "run", "bench", "--", "true"),
    }
    taken = interleaved(measures, 5 if quick else 21)
    imported = median(one - bare for one, bare in zip(taken["import"], taken["python"], strict=True)) * 1e3
    first = median(one - bare for one, bare in zip(taken["first"], taken["python"], strict=True)) * 1e3
    run = median(one - bare for one, bare in zip(taken["run"], taken["true"], strict=True)) * 1e3
    return [
        Figure("start-up", "Python", "bare interpreter", median(taken["python"]) * 1e3, "ms"),
        Figure("start-up", "lockkit", "import lockkit, over a bare Python", imported, "ms").at_most(_IMPORT),
        Figure("start-up", MEMORY, "import, connect and the first lock, over a bare Python", first, "ms"),
        Figure("start-up", store, "lockkit run x -- true, over true", run, "ms").at_most(_RUN),
    ]
