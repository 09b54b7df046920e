"""Everything that is measured on a kind of server, beside its floors and the libraries that people use on it.

The server is a private one, started for the run and gone with it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pkgutil import resolve_name
from typing import Any

from bench.contenders import PEERS, installed, makers
from bench.floors import AWAKE, FLOORS, QUEUES, WOKEN
from lockkit.store.spi import Claim
from lockkit.testing.bench.calls import uncontended
from lockkit.testing.bench.contended import contended, handoff
from lockkit.testing.bench.figures import Figure
from lockkit.testing.bench.processes import crowds, held
from lockkit.testing.bench.trial import Trial, connected, own
from lockkit.testing.processes import ServerMissing
from lockkit.values.names import new_token

__all__ = ["measured", "served"]


_SERVERS = {
    "redis": ("lockkit, Redis", "support.servers.redis:RedisServer", "redis"),
    "etcd": ("lockkit, etcd", "support.servers.etcd:EtcdServer", ""),
    "zookeeper": ("lockkit, ZooKeeper", "support.servers.zookeeper:ZooKeeperServer", "kazoo"),
}
"""By the kind of server: lockkit's name on it, the class of a private one, and a module that is needed."""
_IMPATIENT = {"etcd3", "etcd3gw"}
"""Libraries whose lock cannot wait: that of etcd3gw asks once; that of etcd3 raises when it has to wait."""
_FAIR = {("redis", "python-redis-lock"), ("zookeeper", "kazoo"), ("zookeeper", "tooz")}
"""Libraries that let nobody overtake."""


@contextmanager
def served(trial: Trial, kind: str) -> Iterator[tuple[Trial, Any]]:
    """The trial on a private server of a kind, and the server.

    Raises:
        ServerMissing: There is no server to start, or no client for it.
    """
    store, server_class, client = _SERVERS[kind]
    if client and not find_spec(client):
        raise ServerMissing(f"the library {client} is not installed; run: pip install 'lockkit[{kind}]'")
    found = installed(PEERS[kind])
    with resolve_name(server_class)() as server:
        url = f"{server.url()}?tick={server.tick:g}&max_ttl=60" if kind == "zookeeper" else server.url()
        yield (
            replace(
                trial,
                url=url,
                store=store,
                makers={**makers(kind, url), store: partial(own, url=url, folder=trial.folder)},
                floors=[*FLOORS[kind]],
                woken=next(iter(WOKEN[kind])),
                queues=[*QUEUES[kind]],
                awake=AWAKE if kind == "redis" else "",
                peers=found,
                waiting=[name for name in found if name not in _IMPATIENT],
                fair=[name for name in found if (kind, name) in _FAIR],
                counted=True,
                cpu=partial(_cpu, server.pid),
                requests=server.requests,
            ),
            server,
        )


def measured(trial: Trial) -> list[Figure]:
    """Everything that is measured on the kind of server after which the bench is called."""
    with served(trial, trial.bench) as (there, server):
        figures = [*uncontended(there), *handoff(there), *contended(there), *crowds(there)]
        return [*figures, *([_place(there, server)] if trial.bench == "redis" else []), *held(there)]


def _place(trial: Trial, server: Any) -> Figure:
    """The time that a Redis server spends on telling a waiter its place, by the server's own count."""
    waiters = 200 if trial.quick else 1000
    with connected(trial.url, trial.folder) as client:
        lock, backend = client.lock("position"), client.driver().backend
        with lock.acquire():
            claims = [Claim(new_token(), lock.terms, True) for _ in range(waiters)]
            for claim in claims:
                backend.acquire(claim, True, 2.0)
            before = server.commands()["evalsha"]
            for claim in claims:
                backend.acquire(claim, False, 2.0)
            after = server.commands()["evalsha"]
    spent = (int(after["usec"]) - int(before["usec"])) / (int(after["calls"]) - int(before["calls"])) / 1e3
    return trial.figure(f"a place among {waiters:,} waiters: time of the server", spent, "ms")


def _cpu(pid: int) -> float:
    """The CPU seconds of a process so far, by clock_getcpuclockid(3): other counts have ticks of 10 ms."""
    return time.clock_gettime(~pid << 3 | 2)
