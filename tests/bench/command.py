"""The command line: ``lockkit bench`` with other libraries and private servers."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from bench.contenders import INSTALL, PEERS, peers, unusable
from bench.etcd_asyncio import PEERS as ETCD_ASYNCIO_PEERS
from bench.etcd_asyncio import etcd_asyncio
from bench.etcd_contenders import PEERS as ETCD_PEERS
from bench.etcd_store import etcd
from bench.local import contended, handoff, uncontended
from bench.redis_asyncio import redis_asyncio
from bench.redis_contenders import PEERS as REDIS_PEERS
from bench.redis_store import redis
from bench.zookeeper_contenders import PEERS as ZOOKEEPER_PEERS
from bench.zookeeper_store import zookeeper
from lockkit.testing.bench import command
from lockkit.testing.bench.command import Bench, parsed, place, show
from lockkit.testing.bench.figures import Figure, progress
from lockkit.testing.bench.workers import quiet
from lockkit.testing.processes import ServerMissing

__all__ = ["BENCHES", "main"]

BENCHES: Mapping[str, Bench] = {
    **command.BENCHES,
    "uncontended": uncontended,
    "hand-off": handoff,
    "contended": contended,
    "redis": redis,
    "redis-asyncio": redis_asyncio,
    "etcd": etcd,
    "etcd-asyncio": etcd_asyncio,
    "zookeeper": zookeeper,
}
"""Every bench by name."""
_PEERS = {
    "redis": REDIS_PEERS,
    "redis-asyncio": {"redis": "redis"},
    "etcd": ETCD_PEERS,
    "etcd-asyncio": ETCD_ASYNCIO_PEERS,
    "zookeeper": ZOOKEEPER_PEERS,
}


def main(args: Sequence[str] | None = None) -> int:
    """Run benches and print what they found.

    A bench whose server is not installed is left out, with a message; if it was asked for by name, that is an error.

    Returns:
        0, also if a target is missed; 69 without a server that was asked for.
    """
    run = parsed(args, BENCHES, "python tests/bench")
    libraries = [PEERS, *(_PEERS[name] for name in run.benches if name in _PEERS)]
    missing = {name: INSTALL.get(name, name) for some in libraries for name in peers(some)[1]}
    for name in missing:
        if why := unusable(name):
            sys.stderr.write(f"left out: {name}: {why}\n")
    found: list[Figure] = []
    with quiet(), place(run) as (folder, url, store):
        for name in run.benches:
            progress(name)
            try:
                found += BENCHES[name](folder, url, store, quick=run.quick)
            except ServerMissing as error:
                sys.stderr.write(f"left out: {name}: {error}\n")
                if run.named:
                    return 69
    show(run, found, missing)
    return 0
