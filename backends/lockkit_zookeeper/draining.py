"""The mark of a drained namespace: a node that acquires read or watch (see ``drain_watch``)."""

from __future__ import annotations

import kazoo.exceptions as theirs

from lockkit.store.comparing import ROUNDS, overtaken
from lockkit_zookeeper import evicting
from lockkit_zookeeper.private import Create2, GetData, SetData, Sync
from lockkit_zookeeper.store import ZooKeeperStore

__all__ = ["Mark"]

_PERSISTENT = 0


class Mark:
    """See :class:`lockkit.store.spi.Drains`."""

    def __init__(self, store: ZooKeeperStore) -> None:
        self._store = store
        self._path = store.paths.mark

    def get(self, budget: float, namespace: str | None = None) -> str | None:
        """See :meth:`lockkit.store.spi.Drains.get`."""
        path = self._path if namespace is None else self._store.paths.mark_of(namespace)
        _, found = self._store.call(budget).ask_all(Sync(path), GetData(path, None))
        return None if found is None else found[0].decode(errors="replace")

    def set(self, mark: str, budget: float) -> None:
        """See :meth:`lockkit.store.spi.Drains.set`."""
        store, path = self._store, self._path
        call, data = store.call(budget), mark.encode()
        for _ in range(ROUNDS):
            try:
                call.ask(SetData(path, data, -1))
                return
            except theirs.NoNodeError:
                pass
            try:
                call.ask(Create2(path, data, store.acl, _PERSISTENT))
                return
            except theirs.NodeExistsError:
                pass
            except theirs.NoNodeError:
                call.make_parents(store.paths.queues, store.acl)
        raise overtaken("the mark of a drain")

    def turn_away(self, name: str, claim_id: str, budget: float) -> bool:
        """See :meth:`lockkit.store.spi.Drains.turn_away`."""
        return evicting.turn_away(self._store, name, claim_id, budget)

    def clear(self, mark: str, budget: float) -> bool:
        """See :meth:`lockkit.store.spi.Drains.clear`."""
        call, path = self._store.call(budget), self._path
        for _ in range(ROUNDS):
            _, found = call.ask_all(Sync(path), GetData(path, None))
            if found is None or found[0] != mark.encode():
                return False
            try:
                return call.remove(path, found[1].version)
            except theirs.BadVersionError:
                continue
        raise overtaken("the mark of a drain")
