"""The kind of pool in which this process runs tasks, if known: a worker notes it before it forks."""

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
    """``prefork``, ``threads``, ``solo``, ...; empty outside a worker, or if unknown."""
    return _kinds[0] if _kinds else ""


def kind_of(pool: str | type) -> str:
    """The kind of a pool class or name, as :func:`pool_kind` has it; a subclass of a Celery pool has its."""
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
        ConfigError: The pool has greenlets, where computing tasks block the heartbeat; or tasks would wait in
            a worker's only thread, maybe for a task behind them; or the store's locks are for one process.
    """
    kind = pool_kind()
    environment = str(detect_environment())  # type: ignore[no-untyped-call]
    pool = environment if environment in GREEN else kind
    setup = Setup(pool=pool, store=client.url, reach=client.capabilities.scope)
    refuse(setup, LockedFacts(task, on_busy=on_busy), "pool", "solo", "processes")
