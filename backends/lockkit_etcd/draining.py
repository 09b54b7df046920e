"""The mark of a drained namespace: a key compared by each transaction that grants or queues a claim."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from lockkit.facts import Evicted
from lockkit.store.comparing import ROUNDS, overtaken
from lockkit.store.drains import refused
from lockkit.store.exchanges import Exchange
from lockkit.store.spi import Refused
from lockkit_etcd import keys
from lockkit_etcd.operating import evict
from lockkit_etcd.store import EtcdStore
from lockkit_etcd.transport import Compare, Delete, Get, Kv, Put, Txn, TxnAnswer

__all__ = ["Mark", "drained"]


class Mark:
    """See :class:`lockkit.store.spi.Drains`.

    Args:
        store: The store.
        perform: Performs an exchange.
    """

    def __init__(self, store: EtcdStore, perform: Callable[[Exchange[Any]], Any]) -> None:
        self._store = store
        self._perform = perform

    def get(self, budget: float, namespace: str | None = None) -> str | None:
        """See :meth:`lockkit.store.spi.Drains.get`."""
        key = self._store.mark.key if namespace is None else keys.mark(namespace)
        found = self._perform(self._store.range(Get(key), time.monotonic() + budget)).kvs
        return found[0].value.decode(errors="replace") if found else None

    def set(self, mark: str, budget: float) -> None:
        """See :meth:`lockkit.store.spi.Drains.set`."""
        put = Put(self._store.mark.key, mark.encode())
        self._perform(self._store.txn(Txn((), (put,)), time.monotonic() + budget))

    def clear(self, mark: str, budget: float) -> bool:
        """See :meth:`lockkit.store.spi.Drains.clear`."""
        cleared: bool = self._perform(self._clear(mark.encode(), time.monotonic() + budget))
        return cleared

    def turn_away(self, name: str, claim_id: str, budget: float) -> bool:
        """See :meth:`lockkit.store.spi.Drains.turn_away`."""
        evicted: Evicted = self._perform(
            evict(self._store, name, claim_id, budget, at_once=False, waiting=True)
        )
        return evicted.outcome == "REMOVED"

    def _clear(self, mark: bytes, end: float) -> Exchange[bool]:
        get = self._store.mark
        found: Sequence[Kv] = (yield from self._store.range(get, end)).kvs
        for _ in range(ROUNDS):
            if not found or found[0].value != mark:
                return False
            same = Compare(get.key, "MOD", "EQUAL", found[0].modified)
            answer = yield from self._store.txn(Txn((same,), (Delete(get.key),), (get,)), end)
            if answer.succeeded:
                return True
            found = answer.found()
        raise overtaken("the mark of a drain")


def drained(store: EtcdStore, answer: TxnAnswer) -> Refused | None:
    """The refusal, if a drain kept a transaction from being done; its else branch reads the mark first."""
    if answer.succeeded:
        return None
    found = answer.found(0)
    return refused(found[0].value, store.namespace) if found else None
