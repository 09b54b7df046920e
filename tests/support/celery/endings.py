"""The Celery application of the tests of how tasks end: each holds a lock, reports it, and ends as asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

from celery.exceptions import Ignore, Reject

from lockkit.integrations.celery import LockedTask
from support.celery.plain import make_app, stage

__all__ = ["TTL", "app"]

TTL = 90
"""Seconds after which a claim lapses: longer than any test waits, so a lock free before was given up."""

MIN_HOLD = None if os.environ["LOCKKIT_URL"].startswith("zookeeper:") else 5
"""ZooKeeper has none, and a worker with a task that needs one does not start there."""

app = make_app(
    "endings",
    worker_soft_shutdown_timeout=float(os.environ.get("SOFT_SHUTDOWN", "0")),
    lockkit_ttl=float(os.environ.get("TASK_TTL", TTL)),
)

_OUTLIVES = """
import os, signal, sys, time
from support.celery.stage import Stage
signal.signal(signal.SIGTERM, signal.SIG_IGN)
stage = Stage(sys.argv[1])
stage.tell("outlives", sys.argv[2])
stage.wait_for_word(sys.argv[2] + ":outlives")
stage.tell("outlived", sys.argv[2])
"""
"""A program that a task starts, and that works on when its task is dead."""


@app.task(bind=True, base=LockedTask, name="endings.play", lock="{lock}", on_busy="fail")  # type: ignore[untyped-decorator]
def play(self: Any, lock: str, how: str) -> str:
    """Hold a lock and end."""
    return _play(self, lock, how)


@app.task(bind=True, base=LockedTask, name="endings.late", lock="{lock}", on_busy="fail", acks_late=True)  # type: ignore[untyped-decorator]
def late(self: Any, lock: str, how: str) -> str:
    """Hold a lock and end, acknowledged at the end."""
    return _play(self, lock, how)


@app.task(
    bind=True, base=LockedTask, name="endings.delayed", lock="{lock}", on_busy="fail", min_hold=MIN_HOLD
)  # type: ignore[untyped-decorator]
def delayed(self: Any, lock: str, how: str) -> str:
    """Hold a lock, which stays blocked for a while, and end."""
    return _play(self, lock, how)


@app.task(
    bind=True,
    base=LockedTask,
    name="endings.pooled",
    pool="licences",
    members=["a", "b"],
    count=2,
    on_busy="fail",
)  # type: ignore[untyped-decorator]
def pooled(self: Any, how: str) -> str:
    """Hold two members of a pool and end."""
    return _play(self, "licences", how)


def _play(self: Any, lock: str, how: str) -> str:
    here, task = stage(), self.request.id
    if how == "ignore TERM":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if how == "leave":
        subprocess.Popen([sys.executable, "-c", _OUTLIVES, here.url, task], start_new_session=True)
        here.wait("outlives", task)
    here.tell("holds", task, lock=lock, retries=self.request.retries)
    if how in ("refuse", "reuse"):
        return _run_again(lock, how)
    if how in ("error", "retry", "ignore", "reject", "exit", "os._exit", "kill"):
        _end(self, how)
    if how == "spin":
        while True:
            time.sleep(0.05)
    word = here.wait_for_word(task)
    if word == "eat":
        eaten = []
        while True:
            eaten.append(os.urandom(1 << 20))
    here.tell("ends", task)
    return word


def _run_again(lock: str, nested: str) -> str:
    """The words of a ``lockkit run`` that a task starts under its own lock; ``ran`` if its command ran."""
    run = [
        sys.executable,
        "-m",
        "lockkit",
        "run",
        lock,
        "--nested",
        nested,
        "--timeout",
        "10",
        "--",
        "echo",
        "ran",
    ]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    return done.stdout.strip() or done.stderr


def _end(self: Any, how: str) -> None:
    """End in a way that is no return."""
    if how == "error":
        raise ValueError("told to fail")
    if how == "retry" and self.request.retries == 0:
        raise self.retry(countdown=0, max_retries=1)
    if how == "ignore":
        raise Ignore("told to")
    if how == "reject":
        raise Reject("told to", requeue=False)
    if how == "exit":
        raise SystemExit(3)
    if how == "os._exit":
        os._exit(3)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
