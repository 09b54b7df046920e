"""The mark of a drained namespace: a key that the script of acquire looks at.

A script on a Cluster sees only keys of its own slot. So there each of the 16384 slots has a copy of the mark,
set and removed everywhere before the call returns. One client at a time does that, under a lock of its own.
Meanwhile, and after a failure half-way, the mark that everybody reads says that it is partial.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

import redis.exceptions as theirs

from lockkit.errors import BackendUnavailable
from lockkit.store.budgets import left
from lockkit.store.drains import partly
from lockkit.store.spi import Refused, Unknown
from lockkit.values import durations
from lockkit_redis import keys, operating, scripts
from lockkit_redis.connection import pack
from lockkit_redis.server import Server
from lockkit_redis.store import RedisStore
from lockkit_redis.topology import Cluster

__all__ = ["Mark"]

_BATCH = 4096
"""Keys in one pipeline."""
_LOCK_TTL_MS = 30_000
"""Milliseconds after which another client may set or remove a Cluster's mark, if the first one has died."""


class Mark:
    """See :class:`lockkit.store.spi.Drains`."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self._key = keys.mark(store.namespace)

    def get(self, budget: float, namespace: str | None = None) -> str | None:
        """See :meth:`lockkit.store.spi.Drains.get`."""
        key = self._key if namespace is None else keys.mark(namespace)
        stored = self._store.ask(key, pack("GET", key), budget)
        return None if stored is None else stored.decode(errors="replace")

    def set(self, mark: str, budget: float) -> None:
        """See :meth:`lockkit.store.spi.Drains.set`. On a Cluster an error may leave a partial mark: retry."""
        end = time.monotonic() + budget
        if self._store.topology.one:
            self._store.ask(self._key, pack("SET", self._key, mark), left(end))
            return
        with self._alone(end):
            part = partly(mark)
            self._store.ask(self._key, pack("SET", self._key, part), left(end))
            with _begun():
                self._in_each_slot(end, "SET", mark)
                if not self._replace(self._key, part, mark, end):
                    text = (
                        f"{self._store.where}: another client drains or undrains "
                        f"namespace {self._store.namespace!r}"
                    )
                    raise Unknown(BackendUnavailable(text, hint="look at who drains it"), retry=False)

    def clear(self, mark: str, budget: float) -> bool:
        """See :meth:`lockkit.store.spi.Drains.clear`."""
        end = time.monotonic() + budget
        if self._store.topology.one:
            return self._remove(self._key, mark, end)
        with self._alone(end):
            part, stored = partly(mark), self.get(left(end))
            if stored != part and (stored != mark or not self._replace(self._key, mark, part, end)):
                return False
            with _begun():
                self._in_each_slot(end, "DEL")
                return self._remove(self._key, part, end)

    def turn_away(self, name: str, claim_id: str, budget: float) -> bool:
        """See :meth:`lockkit.store.spi.Drains.turn_away`."""
        evicted = operating.evict(self._store, name, claim_id, budget, at_once=False, waiting=True)
        return evicted.outcome == "REMOVED"

    def _remove(self, key: str, value: str, end: float) -> bool:
        return self._clear(key, end, value)

    def _replace(self, key: str, value: str, by: str, end: float) -> bool:
        return self._clear(key, end, value, by)

    def _clear(self, key: str, end: float, *values: str) -> bool:
        command = scripts.CLEAR.packed((key,), *values)
        return bool(self._store.ask(key, command, left(end), script=scripts.CLEAR))

    @contextmanager
    def _alone(self, end: float) -> Iterator[None]:
        """Keep all other clients from changing the mark meanwhile.

        Raises:
            Refused: Another client changes it.
        """
        key, token = keys.marking(self._store.namespace), os.urandom(16).hex()
        taken = self._store.ask(key, pack("SET", key, token, "NX", "PX", _LOCK_TTL_MS), left(end))
        if taken is None:
            lasts = max(int(self._store.ask(key, pack("PTTL", key), left(end))), 0) / 1000.0
            text = (
                f"{self._store.where}: another client drains or undrains "
                f"namespace {self._store.namespace!r}, or was cut off doing it"
            )
            hint = f"try again when it has finished, or if it was cut off in {durations.show(lasts)}"
            raise Refused(BackendUnavailable(text, hint=hint))
        try:
            yield
        finally:
            try:
                self._remove(key, token, max(end, time.monotonic() + 0.2))
            except (Refused, Unknown):  # it lapses by itself
                pass

    def _in_each_slot(self, end: float, *words: str) -> None:
        """Do one command on the mark of each slot: SET with the mark, or DEL.

        Raises:
            Refused, Unknown: The command may not have been done in every slot.
        """
        store, cluster = self._store, self._store.topology
        assert isinstance(cluster, Cluster)
        together: dict[Server, list[str]] = {}
        for slot, key in enumerate(keys.marks(store.namespace)):
            together.setdefault(cluster.of(slot), []).append(key)
        verb, *value = words
        for server, some in together.items():
            # All these keys have the same length, so one command is packed, and only its key is replaced.
            before, after = pack(verb, some[0], *value).split(some[0].encode())
            for start in range(0, len(some), _BATCH):
                row = some[start : start + _BATCH]
                packed = b"".join([before + key.encode() + after for key in row])
                replies = store.row(server, packed, left(end), len(row))
                for key, reply in zip(row, replies, strict=True):
                    if isinstance(reply, theirs.RedisError):  # the slot may have moved
                        store.ask(key, pack(verb, key, *value), left(end))


@contextmanager
def _begun() -> Iterator[None]:
    """Say of what fails in the body that its outcome is unknown: other slots have been changed before."""
    try:
        yield
    except Refused as refusal:
        raise Unknown(refusal.error, retry=refusal.retry) from None
