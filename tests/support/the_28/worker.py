"""A worker that takes the lock ``job``: a program to kill and stop, or a thread for in-process stores."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import lockkit
from lockkit.lib.clock import SYSTEM
from lockkit.values.history import Period

__all__ = ["JOB", "ThreadWorker", "Worker", "WorkerProcess", "take_turns", "take_turns_in_processes"]

JOB = "job"
"""The name of the lock that all workers take."""
_PATIENCE = 60.0
"""Seconds: a bound on the slowness of the machine."""


class Worker(Protocol):
    """A worker that waits for the lock, and holds it for as long as it lives."""

    @property
    def fence(self) -> int:
        """The fence of its lease, once it holds."""

    def valid(self) -> bool:
        """Whether the worker believes that it holds the lock."""

    def kill(self) -> None:
        """Let it die without a word (``kill -9``)."""

    def stop(self) -> None:
        """Let it stand still, as a suspended machine does (SIGSTOP)."""

    def resume(self) -> None:
        """Let it go on."""

    def close(self) -> None:
        """End it."""


class WorkerProcess:
    """A worker in a process of its own."""

    def __init__(self, settings: Mapping[str, object], ttl: float) -> None:
        self._process = _started("hold", dict(settings), ttl)
        self._fence = 0

    @property
    def fence(self) -> int:
        if not self._fence:
            self._fence = int(self._read())
        return self._fence

    def valid(self) -> bool:
        assert self.fence
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._read() == "True"

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


class ThreadWorker:
    """A worker on a thread with its own client, for an in-process store. Its death is that of its client."""

    def __init__(self, client: lockkit.Client, ttl: float) -> None:
        self._client = client
        self._lock = client.lock(JOB, ttl=ttl)
        self._held = threading.Event()
        self._thread = threading.Thread(target=self._hold, daemon=True)
        self._thread.start()

    def _hold(self) -> None:
        try:
            self._lease = self._lock.acquire(_PATIENCE).detach()
        except lockkit.AcquireError:
            return
        self._held.set()

    @property
    def fence(self) -> int:
        assert self._held.wait(_PATIENCE)
        return self._lease.fence

    def valid(self) -> bool:
        assert self.fence
        return self._lease.valid()

    def kill(self) -> None:
        driver = self._client.driver()
        driver.beats.closing = driver.ending.gone = True
        self.stop()
        driver.orphans.close()
        for hold in driver.beats.holds():
            hold.end()

    def stop(self) -> None:
        driver = self._client.driver()
        driver.heartbeat.close()
        driver.heartbeat.join(2.0)

    def resume(self) -> None:
        """Do nothing: what stood still was the heartbeat, and the lease knows by its clock what it missed."""

    def close(self) -> None:
        self._client.close()
        self._thread.join()


def take_turns(client: lockkit.Client, seconds: float) -> Period:
    """Take the lock once, and work under it for some seconds."""
    with client, client.lock(JOB).acquire(_PATIENCE) as lease:
        began = SYSTEM.now()
        time.sleep(seconds)
        ended = SYSTEM.now()
        lease.ensure_held()
        return Period(began, ended, lease.fence, lease.claim_id)


def take_turns_in_processes(
    processes: int, threads: int, settings: Mapping[str, object], seconds: float
) -> list[Period]:
    """Have processes, with as many threads each, take the lock once; each thread has its own client."""
    started = [_started("turns", dict(settings), threads, seconds) for _ in range(processes)]
    try:
        said = [process.communicate(timeout=_PATIENCE)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    return [Period(**fields) for text in said for fields in json.loads(text)]


def _started(*task: object) -> subprocess.Popen[str]:
    """A process that runs this file."""
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", __file__, json.dumps(task)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )


def _hold(settings: Mapping[str, Any], ttl: float) -> None:
    client = lockkit.connect(**settings)
    lease = client.lock(JOB, ttl=ttl).acquire(_PATIENCE)
    print(lease.fence, flush=True)  # noqa: T201 - the answer to the one who started this process
    for _ in sys.stdin:
        print(lease.valid(), flush=True)  # noqa: T201


def _turns(settings: Mapping[str, Any], threads: int, seconds: float) -> None:
    served: list[Period] = []
    working = [
        threading.Thread(target=lambda: served.append(take_turns(lockkit.connect(**settings), seconds)))
        for _ in range(threads)
    ]
    for each in working:
        each.start()
    for each in working:
        each.join()
    fields = ("began", "ended", "fence", "who")
    print(json.dumps([{name: getattr(one, name) for name in fields} for one in served]))  # noqa: T201


_KINDS: Mapping[str, Callable[..., None]] = {"hold": _hold, "turns": _turns}


def main(arguments: Sequence[str]) -> None:
    """Do what the one who started this process asked for."""
    kind, *task = json.loads(arguments[0])
    _KINDS[kind](*task)


if __name__ == "__main__":
    main(sys.argv[1:])
