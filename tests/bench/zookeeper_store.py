"""ZooKeeper: what lockkit costs on it, beside what no lock there can beat and the libraries that people use for it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from bench.contenders import peers
from bench.remote import Remote, cpu_of
from bench.zookeeper_contenders import FLOOR, PEERS, SEQUENTIAL, WOKEN
from lockkit.testing.bench.figures import Figure
from lockkit.testing.processes import ServerMissing

__all__ = ["zookeeper"]

_UNCONTENDED, _HANDOFF, _HEARTBEAT, _BEAT = 1.25, 2.0, 1.0, 10.0


def zookeeper(folder: Path, _url: str, _store: str, *, quick: bool) -> list[Figure]:
    """Everything that is measured on ZooKeeper.

    Raises:
        ServerMissing: There is no server to start, or no client for it.
    """
    found, missing = peers(PEERS)
    if "kazoo" in missing:
        raise ServerMissing("kazoo is not installed; run: pip install 'lockkit[zookeeper]'")
    from support.servers.zookeeper import ZooKeeperServer

    with ZooKeeperServer() as server:
        remote = Remote(
            bench="zookeeper",
            store="lockkit, ZooKeeper",
            url=f"{server.url()}?tick={server.tick:g}&max_ttl=60",
            requests=server.requests,
            cpu=partial(cpu_of, server.pid),
            floor=FLOOR,
            floors=(SEQUENTIAL,),
            woken=WOKEN,
            found=found,
            waiting=found,
            folder=folder,
            quick=quick,
        )
        return [
            *remote.uncontended(_UNCONTENDED),
            *remote.handoff(_HANDOFF),
            *remote.contended(4, fair=found),
            *remote.crowds(),
            *remote.held(_HEARTBEAT, _BEAT),
        ]
