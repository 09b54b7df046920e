"""Celery signals by which a worker watches its pool processes' locks, and ends waits when it stops.

See :mod:`lockkit.integrations.celery.watch` and :mod:`lockkit.integrations.celery.stopping`.

Importing this module is enough. Without a :class:`LockedTask`, or outside a worker, nothing happens.
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

from celery.signals import (
    worker_init,
    worker_process_init,
    worker_process_shutdown,
    worker_ready,
    worker_shutdown,
)

from lockkit.errors import LockkitError
from lockkit.integrations.celery.clients import close_clients, settings_of
from lockkit.integrations.celery.held_by_child import enrol
from lockkit.integrations.celery.stopping import end_waits_with
from lockkit.integrations.celery.taking import check
from lockkit.integrations.celery.worker_pool import check_pool, pool_kind
from lockkit.sync.client import connect

if TYPE_CHECKING:
    from celery import Celery

    from lockkit.integrations.celery.options import LockOptions
    from lockkit.integrations.celery.watch import Watch

__all__: list[str] = []

_log = logging.getLogger("lockkit")
_PR_SET_CHILD_SUBREAPER = 36

_watch: Watch | None = None


@worker_init.connect(weak=False)
def _prepare(sender: Any = None, **_: Any) -> None:
    """Before the worker forks: refuse tasks bound to fail, and make what the pool processes inherit."""
    global _watch  # noqa: PLW0603 (one worker in a process)
    tasks = {
        name: task.lock_options for name, task in sender.app.tasks.items() if hasattr(task, "lock_options")
    }
    if not tasks:
        return
    _check(sender.app, tasks)
    end_waits_with(sender.app)
    if pool_kind() != "prefork":
        return
    if not hasattr(os, "pidfd_open") or not hasattr(os, "memfd_create") or not _become_subreaper():
        _log.warning(
            "this system cannot prove the death of a pool process and of all it has started: "
            "the lock of one that is killed lapses after its ttl"
        )
        return
    from lockkit.integrations.celery.watch import (
        Watch,
    )  # late: it imports Celery's worker, which a program that only sends tasks does without

    _watch = Watch(lambda: connect(**settings_of(sender.app)), lambda: _beat_of(sender))


def _check(app: Celery, tasks: Mapping[str, LockOptions]) -> None:
    """Refuse tasks whose lock cannot work, because of the pool or of the configuration. No store is asked.

    Raises:
        SystemExit: There is such a task, or the configuration cannot be used. The text says what to change.
    """
    which = ""
    try:
        # Not client_of(app): the pool processes make clients of their own.
        with closing(connect(**settings_of(app))) as client:
            for name, options in tasks.items():
                check_pool(name, options.on_busy, client)
            for name, options in tasks.items():
                which = f"task {name}: "
                check(client, options)
    except LockkitError as error:
        raise SystemExit(f"lockkit: {which}{error}") from None


def _beat_of(worker: Any) -> list[int]:
    pid = getattr(getattr(worker, "beat", None), "pid", None)
    return [pid] if isinstance(pid, int) else []


@worker_ready.connect(weak=False)
def _start(**_: Any) -> None:
    if _watch is not None:
        _watch.start()


@worker_process_init.connect(weak=False)
def _greet_main_process(**_: Any) -> None:
    enrol(pool=True)


@worker_process_shutdown.connect(weak=False)
def _end_pool_process(**_: Any) -> None:
    """Finish writing when a pool process ends: billiard uses ``os._exit``, which skips atexit functions."""
    close_clients()


@worker_shutdown.connect(weak=False)
def _stop(**_: Any) -> None:
    if _watch is not None:
        _watch.stop()


def _become_subreaper() -> bool:
    """Become the parent of all descendants whose parent ends; False if the kernel cannot do that."""
    try:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (AttributeError, OSError):
        return False
    return bool(prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
