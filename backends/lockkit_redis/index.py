"""The index of names: a sorted set per namespace, so that nobody has to scan a shared server.

The index is advice: a name in it may have no claims, and a missing name comes with the next heartbeat.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import redis.exceptions as theirs

from lockkit.store.budgets import left
from lockkit.store.exchanges import Exchange
from lockkit.store.spi import Refused, Unknown
from lockkit_redis.connection import TIME, millis_of, pack
from lockkit_redis.failures import checked
from lockkit_redis.keys import Keys, index, name_in, namespace_in, pattern, pattern_of_all
from lockkit_redis.requests import ask
from lockkit_redis.server import Server

if TYPE_CHECKING:
    from lockkit_redis.store import RedisStore

__all__ = ["Index"]

_FRESH = 3_600_000
"""Milliseconds after which a name is noted again; it is forgotten after twice that."""
_REMEMBERED = 50_000
"""Most names that are remembered to be in the index."""
_MOMENT, _PAUSE = 0.25, 5.0
_ROW = 500
"""Queues looked at in a row."""


class Index:
    """The index of a namespace."""

    COMMANDS = 3
    """How many commands :meth:`packed` makes."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self._key = index(store.namespace)
        self._noted: dict[str, float] = {}
        self._not_before = 0.0
        self._seen: tuple[Sequence[str], float] = ((), 0.0)

    def has(self, name: str, now: float) -> bool:
        """True if the name was noted within the last hour."""
        return self._noted.get(name, 0.0) > now

    def note(self, names: Sequence[str], budget: float) -> Exchange[None]:
        """Note the names that are due, within a moment. Never raises; an error pauses it for some seconds."""
        now = self._store.clock.now()
        seen, until = self._seen
        if names is seen and now < until:
            return
        due = [name for name in names if self._noted.get(name, 0.0) <= now]
        if not due:
            self._seen = names, min([self._noted.get(name, now) for name in names], default=now)
        if not due or now < self._not_before:
            return
        end = time.monotonic() + min(budget, _MOMENT)
        try:
            server = yield from self._store.find(self._key)
            _, replies = yield from ask(server, self.packed(due, now), end, self.COMMANDS)
        except (Refused, Unknown):
            self._not_before = now + _PAUSE
            return
        self.noted(due, now, replies)

    def forget(self) -> None:
        """Note every name again: the server has lost its data."""
        self._noted.clear()
        self._seen = (), 0.0

    def packed(self, names: Sequence[str], now: float) -> bytes:
        """The commands that note names, and remove those that no client has noted for two hours."""
        at = self._store.topology.at(self._key).reckoned(now)
        until = at + 2 * _FRESH
        return b"".join(
            (
                pack("ZADD", self._key, *(word for name in names for word in (until, name))),
                pack("ZREMRANGEBYSCORE", self._key, "-inf", at),
                pack("PEXPIREAT", self._key, until),
            )
        )

    def noted(self, names: Sequence[str], now: float, replies: Sequence[Any]) -> None:
        """Remember the names that were noted, unless a reply is an error."""
        if any(isinstance(reply, theirs.RedisError) for reply in replies):
            return
        if len(self._noted) + len(names) > _REMEMBERED:
            self._noted.clear()
        self._noted.update(dict.fromkeys(names, now + _FRESH / 1000.0))

    def names(self, prefix: str, end: float, *, deep: bool) -> list[str]:
        """The names that have claims, sorted. ``deep`` scans every key of the server instead of the index."""
        if deep:
            found = {name_in(key) for key in self._scan(pattern(self._store.namespace), end)}
        else:
            stored = self._store.ask(self._key, pack("ZRANGE", self._key, 0, -1), left(end))
            found = {name.decode() for name in stored}
        return self._taken(sorted(name for name in found if name.startswith(prefix)), end)

    def namespaces(self, budget: float) -> list[str]:
        """The namespaces of all queues and marks of the server. Scans every key: no index has them."""
        ours = ("}:q", ":drain")
        keys = self._scan(pattern_of_all(), time.monotonic() + budget)
        found = {namespace_in(key) for key in keys if key.endswith(ours)}
        return sorted(namespace for namespace in found if namespace)

    def _scan(self, match: str, end: float) -> Iterator[str]:
        """The keys of all servers that match a pattern; one may come twice."""
        for server in self._store.servers():
            cursor = b"0"
            while True:
                scan = pack("SCAN", cursor, "MATCH", match, "COUNT", 1000)
                cursor, keys = self._store.call(server, scan, left(end))
                yield from (key.decode(errors="replace") for key in keys)
                if cursor == b"0":
                    break

    def _taken(self, names: list[str], end: float) -> list[str]:
        """Return the names that have a claim whose deadline has not passed, in the same order."""
        store = self._store
        keys = {name: Keys.of(store.namespace, name) for name in names}
        taken = set[str]()
        for start in range(0, len(names), _ROW):
            together: dict[Server, list[str]] = {}
            for name in names[start : start + _ROW]:
                together.setdefault(store.topology.at(keys[name].queue), []).append(name)
            for server, some in together.items():
                last = (pack("ZRANGE", keys[name].deadlines, -1, -1, "WITHSCORES") for name in some)
                row = b"".join((TIME, *last))
                clock, *claims = checked(store.row(server, row, left(end), 1 + len(some)), server)
                now = millis_of(clock)
                taken.update(
                    name for name, claim in zip(some, claims, strict=True) if claim and float(claim[1]) > now
                )
        return [name for name in names if name in taken]
