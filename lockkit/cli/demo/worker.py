"""A worker of the demo, a process of its own: ``python -m lockkit.cli.demo.worker JOB`` (JSON).

Each line of the log is written with one write(2), so that kill -9 leaves no incomplete line.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import lockkit
from lockkit.config import config
from lockkit.lib.clock import SYSTEM

if TYPE_CHECKING:
    from lockkit.sync.client import Client

__all__ = ["GO", "HOLD", "NAME", "READY", "Job", "connect", "main"]

NAME = "demo"
HOLD = 0.35
"""Seconds for which a worker holds the lock."""
READY = ".ready"
"""The ending of the file by which a worker says that it is ready."""
GO = "go"
"""The file at which all workers start."""
_TICK = 0.02
_LONGEST = 30.0
"""Seconds for which a worker waits for the others."""


@dataclass(frozen=True, slots=True)
class Job:
    """A worker's job: hold the lock ``rounds`` times, for ``hold`` seconds each, but first for ``first``.

    ``url`` is the store; None for the demo's own file. ``cheat``: work without the lock, for the check.
    """

    worker: str
    folder: str
    rounds: int = 2
    hold: float = HOLD
    first: float = HOLD
    ttl: float = 30.0
    process_bound: bool = True
    cheat: bool = False
    url: str | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def connect(folder: str, url: str | None = None) -> Client:
    """A client of the demo's own store, whatever the user's configuration says."""
    settings = config.load(
        url=url or f"sqlite:{folder}/demo.db",
        state_dir=folder,
        environ={},
        home=folder,
        cwd=folder,
        etc=f"{folder}/none",
    )
    return lockkit.connect(config=settings)


def main(text: str) -> None:
    """Do a job."""
    job = Job(**json.loads(text))
    # The loss of a lock is part of the demo, so it is not logged to stderr.
    logging.getLogger("lockkit").addHandler(logging.NullHandler())
    logging.getLogger("lockkit").propagate = False
    log = os.open(
        f"{job.folder}/{job.worker}.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600
    )

    def say(event: str, t: float | None = None, fence: int = 0) -> None:
        line = {"t": SYSTEM.now() if t is None else t, "event": event, "fence": fence}
        os.write(log, f"{json.dumps(line)}\n".encode())

    if job.cheat:
        _cheat(job, say)
        return
    with connect(job.folder, job.url) as client:
        lock = client.lock(NAME, ttl=job.ttl, process_bound=job.process_bound)
        client.inspect(NAME)  # to connect: once let go, it is in the queue as soon as the others
        _wait_for_the_others(job)
        for number in range(job.rounds):
            say("waits")
            lease = lock.acquire(timeout=60)
            until = SYSTEM.now() + (job.hold if number else job.first)
            event = "holds"
            while True:
                t = SYSTEM.now()
                if not lease.valid():
                    say("lost", t)
                    break
                say(event, t, lease.fence)
                event = "sure"
                if t >= until:
                    break
                time.sleep(_TICK)
            outcome = lease.release().outcome
            if outcome == "RELEASED":
                say("released")


def _wait_for_the_others(job: Job) -> None:
    """Wait until all workers are ready, so that each holds the lock once before one holds it twice."""
    folder, end = Path(job.folder), SYSTEM.now() + _LONGEST
    (folder / f"{job.worker}{READY}").touch()
    while not (folder / GO).exists() and SYSTEM.now() < end:
        time.sleep(_TICK)


def _cheat(job: Job, say: object) -> None:
    assert callable(say)
    _wait_for_the_others(job)
    say("waits")
    until = SYSTEM.now() + job.hold * job.rounds
    event = "holds"
    while SYSTEM.now() < until:
        say(event, None, 1)
        event = "sure"
        time.sleep(_TICK)
    say("released")


if __name__ == "__main__":
    main(sys.argv[1])
