"""The Celery application of the tests of many tasks: each run reports when it held, with which fence."""

from __future__ import annotations

import functools
import os
import signal
import time
from typing import Any

import psutil
from celery.signals import worker_init

from lockkit.integrations.celery import LockedTask
from lockkit.integrations.celery.clients import client_of
from lockkit.sync.lease import Lease
from lockkit.values.identity import process_start
from support.celery import plain
from support.celery.stage import Stage
from support.holders import runs

__all__ = ["TTL", "app"]

VISIBILITY = int(os.environ.get("VISIBILITY", "3600"))
TTL = min(60, VISIBILITY)
_LATE = {"acks_late": True, "reject_on_worker_lost": True, "acks_on_failure_or_timeout": False}
_parents: list[Lease] = []

app = plain.make_app("fleet", lockkit_ttl=TTL, accept_content=os.environ.get("ACCEPT", "json").split())
app.conf.broker_transport_options = {
    "visibility_timeout": VISIBILITY,
    # Messages are looked for each second, and not each hundredth one of ten.
    "unacked_restore_interval": 1,
    "unacked_restore_throttle": 1,
}


@functools.cache
def stage(pid: int) -> Stage:
    """The stage, on one connection for each process."""
    assert pid == os.getpid()
    return plain.stage()


def now() -> float:
    """The time of histories."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _tell(task: Any, began: float, fence: int, **about: object) -> None:
    """Tell of a run that is about to end, while it still holds its lock."""
    held = (task.request.headers or {}).get("lockkit_wait") or {}
    task.lease.ensure_held()
    stage(os.getpid()).tell(
        "held",
        task.request.id,
        began=began,
        ended=now(),
        fence=fence,
        tries=held.get("tries", 0),
        retries=task.request.retries,
        **about,
    )


@app.task(bind=True, base=LockedTask, name="fleet.turn", lock="{lock}", fence_as="fence")  # type: ignore[untyped-decorator]
def turn(self: Any, lock: str, number: int, fence: int = 0) -> int:
    """Hold a lock for a moment."""
    began = now()
    time.sleep(0.01)
    _tell(self, began, fence, lock=lock, number=number)
    return number


def _work(self: Any, lock: str, fence: int) -> str:
    """Hold a lock until the test ends it; a second run ends by itself. Reports earlier runs still alive."""
    began, here, task = now(), stage(os.getpid()), self.request.id
    before = here.events("begun", task)
    alive = [one["pid"] for one in before if runs(one["pid"]) and process_start(one["pid"]) == one["started"]]
    here.tell("begun", task, lock=lock, fence=fence, alive=alive, claim=self.lease.claim_id)
    word = "again" if before else here.wait_for_word(task)
    if word == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    _tell(self, began, fence, lock=lock, word=word)
    return word


@app.task(bind=True, base=LockedTask, name="fleet.work", lock="{lock}", fence_as="fence", **_LATE)  # type: ignore[untyped-decorator]
def work(self: Any, lock: str, fence: int = 0) -> str:
    """Work; another message for the same lock is retried."""
    return _work(self, lock, fence)


@app.task(
    bind=True, base=LockedTask, name="fleet.once", lock="{lock}", fence_as="fence", on_busy="skip", **_LATE
)  # type: ignore[untyped-decorator]
def once(self: Any, lock: str, fence: int = 0) -> str:
    """Work; another message for the same lock is dropped."""
    return _work(self, lock, fence)


@app.task(  # type: ignore[untyped-decorator]
    bind=True, base=LockedTask, name="fleet.waiting", lock="{lock}", fence_as="fence", on_busy="wait", **_LATE
)
def waiting(self: Any, lock: str, fence: int = 0) -> str:
    """Work; another message for the same lock waits in the worker."""
    return _work(self, lock, fence)


@app.task(  # type: ignore[untyped-decorator]
    bind=True, base=LockedTask, name="fleet.early", lock="{lock}", fence_as="fence", on_busy="wait"
)
def early(self: Any, lock: str, fence: int = 0) -> str:
    """Work, acknowledged before it begins; another message for the same lock waits in the worker."""
    return _work(self, lock, fence)


@app.task(  # type: ignore[untyped-decorator]
    bind=True,
    base=LockedTask,
    name="fleet.single",
    lock="{lock}",
    fence_as="fence",
    on_duplicate="skip",
    **_LATE,
)
def single(self: Any, lock: str, fence: int = 0) -> str:
    """Work; a copy of the message is dropped, and another one for the same lock is retried."""
    return _work(self, lock, fence)


@app.task(bind=True, base=LockedTask, name="fleet.flaky", lock="{lock}", max_retries=2)  # type: ignore[untyped-decorator]
def flaky(self: Any, lock: str) -> None:
    """Fail, with two retries of its own."""
    _tell(self, now(), self.lease.fence, lock=lock)
    raise self.retry(exc=ValueError("told to fail"), countdown=0)


@app.task(base=LockedTask, name="fleet.carry", lock="{lock}", **_LATE)  # type: ignore[untyped-decorator]
def carry(lock: str, what: object) -> str:
    """Hold a lock, and return what came with the message, as text."""
    return f"{lock} {what}"


@app.task(bind=True, base=LockedTask, name="fleet.look", lock="{lock}")  # type: ignore[untyped-decorator]
def look(self: Any, lock: str) -> None:
    """Report the ports and processes to which this process and its parent are connected, and wait."""
    here = stage(os.getpid())
    here.tell("begun", self.request.id, lock=lock, mine=_ports(os.getpid()), parents=_ports(os.getppid()))
    here.wait_for_word(self.request.id)


def _ports(pid: int) -> list[tuple[int, int]]:
    """The local and the remote ports of the connections of a process."""
    found = psutil.Process(pid).net_connections("inet")
    return [(one.laddr.port, one.raddr.port) for one in found if one.status == psutil.CONN_ESTABLISHED]


@worker_init.connect  # type: ignore[untyped-decorator]
def _lock_in_the_parent(**_: object) -> None:
    if "LOCK_IN_PARENT" in os.environ:
        _parents.append(client_of(app).lock(os.environ["LOCK_IN_PARENT"]).acquire())
