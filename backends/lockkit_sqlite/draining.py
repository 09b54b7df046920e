"""The mark of a drained namespace: a record with an empty name, which every grant or new claim looks for."""

from __future__ import annotations

import time
from collections.abc import Callable

from lockkit.store.drains import refused
from lockkit_sqlite import statements as sql
from lockkit_sqlite.operating import evict
from lockkit_sqlite.store import SQLiteStore

__all__ = ["Mark", "unless_drained"]


class Mark:
    """See :class:`lockkit.store.spi.Drains`.

    Args:
        store: Returns the store that is open now.
    """

    def __init__(self, store: Callable[[], SQLiteStore]) -> None:
        self._store = store

    def get(self, budget: float, namespace: str | None = None) -> str | None:
        """See :meth:`lockkit.store.spi.Drains.get`."""
        store = self._store()
        return _read(store, namespace or store.namespace, time.monotonic() + budget)

    def set(self, mark: str, budget: float) -> None:
        """See :meth:`lockkit.store.spi.Drains.set`."""
        store = self._store()
        params = (store.namespace, mark, store.clock.wall())
        store.calls.change(sql.DRAIN, params, time.monotonic() + budget)

    def clear(self, mark: str, budget: float) -> bool:
        """See :meth:`lockkit.store.spi.Drains.clear`."""
        store = self._store()
        return store.calls.change(sql.UNDRAIN, (store.namespace, mark), time.monotonic() + budget) > 0

    def turn_away(self, name: str, claim_id: str, budget: float) -> bool:
        """See :meth:`lockkit.store.spi.Drains.turn_away`."""
        end = time.monotonic() + budget
        return evict(self._store(), name, claim_id, end, at_once=False, waiting=True).outcome == "REMOVED"


def unless_drained(store: SQLiteStore, end: float) -> None:
    """Find out whether a statement did nothing because the namespace is drained.

    Raises:
        Refused: With Drained, if it is.
    """
    mark = _read(store, store.namespace, end)
    if mark is not None:
        raise refused(mark, store.namespace)


def _read(store: SQLiteStore, namespace: str, end: float) -> str | None:
    found = store.calls.read(sql.DRAINED, (namespace,), end)
    return str(found[0][0]) if found else None
