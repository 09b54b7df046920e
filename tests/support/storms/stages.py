"""Where a storm takes place: a store that is started for it, and what strikes there."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from support.servers.etcd import EtcdServer
from support.servers.etcd_groups import EtcdCluster
from support.servers.redis import RedisServer
from support.servers.server import Server
from support.servers.zookeeper_groups import ZooKeeperEnsemble
from support.storms.strikes import (
    LateProxy,
    Strike,
    deposed,
    deposed_without_a_word,
    held_up,
    stand_still,
)

__all__ = ["Stage", "staged"]

PROCESSES = 4
TICK = 0.15
"""Seconds, of ZooKeeper's servers."""


@dataclasses.dataclass
class Stage:
    """A store in a storm.

    Attributes:
        urls: The URL of each process that takes locks.
        ttl: Seconds. Short where claims shall lapse; else so long that one which was left held is found out.
        strikes: What strikes from outside, now and then.
        calm: Grants from one such strike to the next; a tenth of all in a short storm.
        proxies: What strikes all the time, between clients and servers.
    """

    urls: Sequence[str]
    ttl: float
    strikes: Mapping[str, Strike] = dataclasses.field(default_factory=dict)
    calm: int = 50
    proxies: Sequence[LateProxy] = ()


@dataclasses.dataclass
class _Store:
    """Servers, the URL for some of their addresses, ttls as in :class:`Stage`, and its leaders' troubles."""

    url: Callable[[Sequence[str]], str]
    servers: Sequence[Server] = ()
    short: float = 1.0
    long: float = 60.0
    leaders: Mapping[str, Strike] = dataclasses.field(default_factory=dict)


@contextlib.contextmanager
def staged(storm: str, store: str, seed: int, folder: Path) -> Iterator[Stage]:
    """Start a store for a storm."""
    with contextlib.ExitStack() as stack:
        made = _STORES[store.partition("+")[0]](stack, storm, store, folder)
        addresses = [server.address for server in made.servers]
        match storm:
            case "forks" | "signals":
                yield Stage([made.url(addresses)] * (1 if store == "memory" else PROCESSES), made.long)
            case "late":
                proxies = [
                    stack.enter_context(LateProxy((server.host, server.port), seed + number, made.short))
                    for number, server in enumerate(made.servers)
                ]
                url = made.url([proxy.address for proxy in proxies])
                yield Stage(
                    [url] * PROCESSES, made.short, {"stood still": stand_still(made.short)}, 30, proxies
                )
            case _:
                # A client that knows all members goes to another one; one that knows a single member returns
                # to it, whatever its role is then.
                urls = [made.url(addresses)] * 3 + [made.url([address]) for address in addresses]
                yield Stage(urls, made.short, made.leaders, 250)


def _in_process(_stack: contextlib.ExitStack, _storm: str, store: str, folder: Path) -> _Store:
    return _Store(lambda _: "memory:" if store == "memory" else f"sqlite:{folder}/locks.db")


def _redis(stack: contextlib.ExitStack, _storm: str, _store: str, _folder: Path) -> _Store:
    server = stack.enter_context(RedisServer())
    # Only in one primary's history no two hold a lock: so it is paused, and nobody replaces it.
    return _Store(
        lambda addresses: f"redis://{addresses[0]}/0", [server], leaders={"held up": held_up(lambda: server)}
    )


def _etcd(stack: contextlib.ExitStack, storm: str, store: str, _folder: Path) -> _Store:
    def url(addresses: Sequence[str]) -> str:
        return f"{store}://{','.join(addresses)}"

    if storm != "leaders":
        return _Store(url, [stack.enter_context(EtcdServer())])
    cluster: Any = stack.enter_context(EtcdCluster())
    return _Store(
        url,
        cluster.members,
        short=3.0,
        leaders={"held up": held_up(cluster.leader), "deposed": deposed(cluster, 3.0)},
    )


def _zookeeper(stack: contextlib.ExitStack, storm: str, _store: str, _folder: Path) -> _Store:
    """Three servers in every storm: one alone drops what a client sent over an earlier connection."""
    unheard = storm == "leaders-unheard"
    short = 3.0 if unheard or storm == "late" else 6.0
    # Ticks after which followers depose a paused leader, and for which a leader without news goes on.
    limit = 200 if unheard else 20
    ensemble: Any = stack.enter_context(ZooKeeperEnsemble(tick=TICK, proxied=True, syncLimit=limit))
    return _Store(
        lambda addresses: f"zookeeper://{','.join(addresses)}/app?tick={TICK}&max_ttl=9",
        ensemble.members,
        short=short,
        long=9.0,
        leaders={
            "held up": held_up(ensemble.leader),
            "deposed": deposed_without_a_word(ensemble, short) if unheard else deposed(ensemble, short),
        },
    )


_STORES = {
    "memory": _in_process,
    "sqlite": _in_process,
    "redis": _redis,
    "etcd": _etcd,
    "zookeeper": _zookeeper,
}
