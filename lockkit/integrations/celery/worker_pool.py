"""The kind of pool in which this process runs tasks, as far as it is known: a worker tells at its start, before it forks its children."""

from __future__ import annotations

import contextlib
from typing import Any

from celery.concurrency import get_implementation
from celery.signals import worker_init
from kombu.utils.compat import detect_environment

from lockkit.integrations.celery.app_facts import LockedFacts, Setup
from lockkit.integrations.celery.checks import refuse
from lockkit.integrations.celery.mistakes import GREEN
from lockkit.sync.client import Client

__all__ = ["check_pool", "kind_of", "pool_kind"]

_OWN = "celery.concurrency."
_KINDS = {"processes": "prefork", "thread": "threads"} | {
    kind: kind for kind in ("prefork", "threads", "solo", "gevent", "eventlet")
}
"""The kinds of Celery's pools, by the names of the kinds and of their modules."""
_kinds: list[str] = []


@worker_init.connect(weak=False)
def _note_worker(sender: Any = None, **_: Any) -> None:
    _kinds[:] = [kind_of(getattr(sender, "pool_cls", None) or "")]


def pool_kind() -> str:
    """``prefork``, ``threads``, ``solo``, ...; empty in a process that is no worker, or that does not know."""
    return _kinds[0] if _kinds else ""


def kind_of(pool: str | type) -> str:
    """The kind of a pool, as :func:`pool_kind` has it: for a class of somebody's own, that of Celery's pool from which it is derived.

    Args:
        pool: The class of the pool, or a name of it, as ``worker_pool`` may have it.
    """
    if isinstance(pool, str):
        name = pool.removeprefix(_OWN).removesuffix(":TaskPool")
        if name in _KINDS:
            return _KINDS[name]
        with contextlib.suppress(ImportError, AttributeError, ValueError):  # Celery itself will say so
            pool = get_implementation(pool)
    for each in getattr(pool, "__mro__", ()):
        name = each.__module__.removeprefix(_OWN)
        if name in _KINDS and name != each.__module__:
            return _KINDS[name]
    return pool if isinstance(pool, str) else pool.__name__


def check_pool(task: str, on_busy: str, client: Client) -> None:
    """Refuse a pool in which a lock would not keep its promise.

    Raises:
        ConfigError: The pool is one of greenlets, where a task that computes keeps the heartbeat from its work; or tasks would wait in the only
            thread of a worker, which then does nothing else: it tells the broker nothing, and may wait for a lock that a task behind it would release;
            or it is one of processes, and the locks of the store are those of one process.
    """
    kind = pool_kind()
    environment = str(detect_environment())  # type: ignore[no-untyped-call]
    pool = environment if environment in GREEN else kind
    setup = Setup(pool=pool, store=client.url, reach=client.capabilities.scope)
    refuse(setup, LockedFacts(task, on_busy=on_busy), "pool", "solo", "processes")
