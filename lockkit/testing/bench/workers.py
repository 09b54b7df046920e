"""The worker processes of the benchmark: ``python -m lockkit.testing.bench.workers ROLE ...``. They write lines of JSON to stdout."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import logging
import os
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

from lockkit.testing.bench.client import connected
from lockkit.testing.bench.floors import opener

__all__ = ["Worker", "quiet", "say", "started"]

STALL = 1.5
"""Seconds for which the holder of the ``stall`` bench keeps its GIL."""


class Worker:
    """A process that is sent words and answers with lines of JSON."""

    def __init__(self, process: Popen[str]) -> None:
        self._process = process

    def tell(self, word: str) -> None:
        """Send one line."""
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

    def hear(self) -> Any:
        """Wait for one answer.

        Raises:
            RuntimeError: The process ended instead.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a worker of the benchmark ended with exit code {self._process.wait()}")
        return json.loads(line)


@contextlib.contextmanager
def started(role: str, *args: str, module: str = __name__) -> Iterator[Worker]:
    """Start a worker with a role of this module, or of another ``module``. The worker ends with the block."""
    line = [sys.executable, "-m", module, role, *args]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with Popen(line, stdin=PIPE, stdout=PIPE, text=True, env=environment) as process:
        try:
            yield Worker(process)
        finally:
            process.kill()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Log no warnings, because one from each client (for instance about a server without persistence) would hide the figures."""
    log = logging.getLogger("lockkit")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def say(answer: object) -> None:
    """Send an answer to the process that started this worker."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def waiter(name: str, folder: str, url: str, contenders: str) -> None:
    """For each line of input: wait for the lock, answer when it was acquired and how much CPU time the wait took, release it."""
    with opener(contenders)([name], Path(folder), url) as made:
        contender = made[name]
        say("ready")
        for _ in sys.stdin:
            used = time.process_time()
            held = contender.acquire()
            at = time.monotonic()
            say({"at": at, "cpu": time.process_time() - used})
            contender.release(held)


def contender(name: str, folder: str, url: str, contenders: str) -> None:
    """For each line of input, a start and an end: acquire and release without pause between them, and answer what came of it.

    A grant after the end does not count, but the wait for it does.
    """
    with opener(contenders)([name], Path(folder), url) as made:
        acquire, release = made[name].acquire, made[name].release
        release(acquire())
        say("ready")
        for line in sys.stdin:
            start, end = map(float, line.split())
            time.sleep(max(0.0, start - time.monotonic()))
            grants, worst, used = 0, 0.0, time.process_time()
            before = time.monotonic()
            while before < end:
                held = acquire()
                at = time.monotonic()
                release(held)
                worst = max(worst, at - before)
                grants += at < end
                before = time.monotonic()
            say({"grants": grants, "worst": worst, "cpu": time.process_time() - used})


def busy() -> None:
    """Use up a core, and do nothing else."""
    say("ready")
    while True:
        pass


def holder(url: str, folder: str, count: str, ttl: str, seconds: str) -> None:
    """Hold ``count`` locks, report that, and after ``seconds`` answer how much CPU time the heartbeat took."""
    with connected(url, folder) as client:
        backend: Any = client.driver().backend
        renew, calls = backend.renew, [0, 0]

        def counted(beats: Sequence[object], *rest: object) -> object:
            calls[0] += 1
            calls[1] += len(beats)
            return renew(beats, *rest)

        backend.renew = counted
        leases = [client.lock(f"held/{at}", ttl=float(ttl)).acquire() for at in range(int(count))]
        # Some stores do more work for a claim after a moment, which is not part of the heartbeat.
        time.sleep(0.5)
        calls[:] = [0, 0]
        say("held")
        used, began = time.process_time(), time.monotonic()
        time.sleep(float(seconds))
        used, wall = time.process_time() - used, time.monotonic() - began
        valid = sum(lease.valid() for lease in leases)
        say({"cpu": used, "wall": wall, "calls": calls[0], "renewed": calls[1], "valid": valid})
        os._exit(0)  # the releases are not measured, and the store notices the death of the process


def weigher(url: str, folder: str, count: str) -> None:
    """Answer how many bytes of memory a held lock takes in its process: for the lock, its claim, its lease and the rest."""
    with connected(url, folder) as client:
        kept = [client.lock(f"warm/{at}").acquire() for at in range(50)]
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        kept += [client.lock(f"held/{at}").acquire() for at in range(int(count))]
        gc.collect()
        say({"bytes": (tracemalloc.get_traced_memory()[0] - before) / int(count)})
        tracemalloc.stop()
        os._exit(0)


def staller(url: str, folder: str) -> None:
    """Acquire and release without pause on one thread, while another holds the GIL for seconds at a time."""
    usleep = ctypes.PyDLL(None).usleep  # a PyDLL call keeps the GIL
    with connected(url, folder) as client:
        lock = client.lock("stalled")

        def busy() -> None:
            while True:
                lock.acquire().release()

        with client.lock("kept").acquire():
            threading.Thread(target=busy, daemon=True).start()
            time.sleep(0.2)
            say("ready")
            while True:
                usleep(int(STALL * 1e6))
                time.sleep(0.02)


_ROLES: Mapping[str, Callable[..., None]] = {
    "waiter": waiter,
    "contender": contender,
    "busy": busy,
    "holder": holder,
    "weigher": weigher,
    "staller": staller,
}

if __name__ == "__main__":
    with quiet():
        _ROLES[sys.argv[1]](*sys.argv[2:])
