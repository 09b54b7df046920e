"""The figures of docs/ops/sizing.md, measured: `cd tests; python -m support.sizing` prints the tables.

Requests and bytes do not depend on how busy a machine is, so they can be compared with those of another day.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import lockkit
from lockkit.observe.exporter import Exporter
from lockkit.testing.processes import until
from lockkit.views.looking import Asked, look
from support.servers.counting import Count, CountingProxy
from support.servers.etcd import EtcdServer
from support.servers.redis import RedisServer
from support.servers.zookeeper import ZooKeeperServer

__all__ = ["STORES", "Sizes", "measured", "memory", "table_of_memory", "table_of_requests"]

TICK = 0.2
TTL = 4.0
"""Seconds; every lock and session has it, so that some renewals pass in a short time."""
TURNS = 20
HELD = 50
LOOKS = 3
WATCHED = TTL


class Kind(NamedTuple):
    """A kind of server, and what its URL needs beside the address."""

    start: Callable[..., Any]
    options: dict[str, Any]
    query: str


STORES = {
    "redis": Kind(RedisServer, {}, "?"),
    "etcd": Kind(EtcdServer, {}, "?"),
    "zookeeper": Kind(ZooKeeperServer, {"tick": TICK}, f"?tick={TICK:g}&max_ttl=60&"),
}


class Sizes(NamedTuple):
    """The requests and bytes of one store.

    Attributes:
        turn: One acquire and release, with nobody in the way.
        hold: One ttl of one of several held locks of a client.
        waiter: One ttl of a client that waits.
        idle: One ttl of a client that holds nothing, but has done so.
        exporter: One look of the exporter at a held lock.
        server: One look of the server, or of ``lockkit status``, at a held lock.
    """

    turn: Count
    hold: Count
    waiter: Count
    idle: Count
    exporter: Count
    server: Count


@contextlib.contextmanager
def _counted(store: str) -> Iterator[tuple[CountingProxy, str]]:
    """A server, the proxy in front of it, and the URL of the proxy."""
    kind = STORES[store]
    with kind.start(**kind.options) as server, CountingProxy(store, (server.host, server.port)) as proxy:
        yield proxy, f"{store}://{proxy.address}{kind.query}ttl={TTL:g}"


def _share(count: Count, of: float) -> Count:
    return Count(*(round(figure / of, 1) for figure in count))  # type: ignore[arg-type]


def measured(store: str) -> Sizes:
    """Measure requests and bytes on a private server of this kind."""
    with _counted(store) as (proxy, url), lockkit.connect(url) as client:
        lock = client.lock("job")
        lock.acquire(timeout=10).release()
        before = proxy.count()
        for _ in range(TURNS):
            lock.acquire(timeout=10).release()
        turn = _share(proxy.count() - before, TURNS)

        idle = _share(_passing(proxy, WATCHED), WATCHED / TTL)

        with client.lock("taken").acquire(timeout=10), lockkit.connect(url) as other:
            _settle(TTL)
            alone = _share(_passing(proxy, WATCHED), WATCHED / TTL)
            with _waiting(client, other.lock("taken")):
                both = _share(_passing(proxy, WATCHED), WATCHED / TTL)
        waiter = _less(both, alone)

        leases = [client.lock(f"held/{number}").acquire(timeout=10) for number in range(HELD)]
        _settle(TTL)  # the first renewals are spread
        hold = _share(_less(_share(_passing(proxy, WATCHED), WATCHED / TTL), idle), HELD)

        with lockkit.connect(url) as looking:
            exporter = _looks(proxy, lambda: Exporter(looking, keep=0.0).samples())
            server = _looks(proxy, lambda: look(looking, Asked()))
        for lease in leases:
            lease.release()
    return Sizes(turn, hold, waiter, idle, exporter, server)


def _passing(proxy: CountingProxy, seconds: float) -> Count:
    """Count the traffic of an idle time. The measure is a time, so this is no wait for an event."""
    before = proxy.count()
    time.sleep(seconds)
    return proxy.count() - before


def _less(count: Count, base: Count) -> Count:
    return Count(*(max(now - then, 0) for now, then in zip(count, base, strict=True)))


def _looks(proxy: CountingProxy, do: Callable[[], object]) -> Count:
    do()
    before = proxy.count()
    for _ in range(LOOKS):
        do()
    return _share(proxy.count() - before, LOOKS * HELD)


@contextlib.contextmanager
def _waiting(client: Any, lock: Any) -> Iterator[None]:
    """Somebody waits for a lock that is held."""
    import threading

    from lockkit.errors import AcquireCancelled, AcquireTimeout

    def wait() -> None:
        with contextlib.suppress(AcquireTimeout, AcquireCancelled):
            lock.acquire(timeout=WATCHED + 4)

    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: client.inspect(lock.name).waiters, "somebody waits", 20.0)
    _settle(2.0)
    try:
        yield
    finally:
        thread.join()


def _settle(seconds: float) -> None:
    """Let pass what a new claim does once: its note, and its first renewal."""
    time.sleep(seconds)


# -- what lies in a store


def memory() -> dict[str, tuple[int, int]]:
    """Bytes in the store for a held lock, and for each further claim that waits for it, by store."""
    found = {}
    with RedisServer() as redis:
        found["redis"] = _memory(redis.url() + "?ttl=60", lambda: _used(redis))
    with EtcdServer() as etcd:
        found["etcd"] = _memory(etcd.url() + "?ttl=60", lambda: _stored(etcd))
    with ZooKeeperServer(tick=TICK) as zookeeper:
        found["zookeeper"] = _memory(
            f"{zookeeper.url()}?tick={TICK:g}&max_ttl=60&ttl=30",
            lambda: int(zookeeper.mntr()["approximate_data_size"]),
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "locks.db"

        def size() -> int:
            import sqlite3

            with contextlib.closing(sqlite3.connect(path)) as database:
                (pages,) = database.execute("PRAGMA page_count").fetchone()
                (free,) = database.execute("PRAGMA freelist_count").fetchone()
                (each,) = database.execute("PRAGMA page_size").fetchone()
            return int((pages - free) * each)

        found["sqlite"] = _memory(f"sqlite:{path}", size)
    return found


def _used(server: RedisServer) -> int:
    """Bytes that the keys take."""
    _, keys = server.cli("SCAN", 0, "COUNT", 100_000)  # one step is enough for so few
    return sum(server.cli("MEMORY", "USAGE", key, "SAMPLES", 0) for key in keys)


def _stored(server: EtcdServer) -> int:
    """Bytes of all keys and values."""
    import base64

    answer = server.call("kv/range", {"key": b"\0", "range_end": b"\0"})
    return sum(
        len(base64.b64decode(kv[part]))
        for kv in answer.get("kvs", ())
        for part in ("key", "value")
        if part in kv
    )


def _memory(url: str, used: Callable[[], int]) -> tuple[int, int]:
    many = 200
    with lockkit.connect(url) as client:
        client.lock("job").acquire(timeout=10).release()
        before = used()
        leases = [client.lock(f"held/{number:03}").acquire(timeout=10) for number in range(many)]
        held = (used() - before) // many
        before = used()
        shared = client.semaphore("shared", many + 1)
        leases += [shared.acquire(timeout=10) for _ in range(many)]
        further = (used() - before) // many
        for lease in leases:
            lease.release()
    return held, further


# -- the tables


def table_of_requests(found: dict[str, Sizes]) -> str:
    """The table of requests and bytes, in Markdown."""
    words = {
        "turn": "acquire + release, nobody in the way",
        "hold": "a held lock, in one ttl",
        "waiter": "a client that waits, in one ttl",
        "idle": "a client that holds nothing, in one ttl",
        "exporter": "a look of the exporter, for each lock",
        "server": "a look of the server or `lockkit status`, for each lock",
    }
    lines = ["| | " + " | ".join(found) + " |", "|---|" + "---|" * len(found)]
    for field, what in words.items():
        cells = [_cell(getattr(sizes, field)) for sizes in found.values()]
        lines.append(f"| {what} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(count: Count) -> str:
    return f"{count.requests:g} requests, {count.sent:.0f} + {count.received:.0f} B"


def table_of_memory(found: dict[str, tuple[int, int]]) -> str:
    """The table of what lies in a store, in Markdown."""
    rows = zip(("a held lock", "each further claim on it"), zip(*found.values(), strict=True), strict=True)
    lines = ["| | " + " | ".join(found) + " |", "|---|" + "---|" * len(found)]
    lines += [f"| {what} | " + " | ".join(f"{value} B" for value in values) + " |" for what, values in rows]
    return "\n".join(lines)


if __name__ == "__main__":
    requests = table_of_requests({store: measured(store) for store in sys.argv[1:] or STORES})
    sys.stdout.write(f"{requests}\n\n{table_of_memory(memory())}\n")
