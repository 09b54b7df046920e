"""The kind of pool in which this process runs tasks, as far as it is known: a worker tells at its start, before it forks its children."""

from __future__ import annotations

from typing import Any

from celery.signals import worker_init
from kombu.utils.compat import detect_environment

from lockkit.client import Client
from lockkit.integrations.celery.app_facts import LockedFacts, Setup
from lockkit.integrations.celery.checks import refuse
from lockkit.integrations.celery.mistakes import GREEN

__all__ = ["check_pool", "pool_kind"]

_kinds: list[str] = []


@worker_init.connect(weak=False)
def _note_worker(sender: Any = None, **_: Any) -> None:
    pool = getattr(sender, "pool_cls", None)
    module = pool if isinstance(pool, str) else getattr(pool, "__module__", "")
    _kinds[:] = [module.rpartition(".")[2].partition(":")[0]]


def pool_kind() -> str:
    """``prefork``, ``threads``, ``solo``, ...; empty in a process that is no worker, or that does not know."""
    kind = _kinds[0] if _kinds else ""
    return {"thread": "threads", "processes": "prefork"}.get(kind, kind)


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
