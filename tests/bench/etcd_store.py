"""etcd: what lockkit costs on it, beside what no lock there can beat and the libraries that people use for it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from bench.contenders import peers
from bench.etcd_contenders import FLOOR, PEERS, RAW, WAITING, WOKEN
from bench.remote import Remote, cpu_of
from lockkit.testing.bench.figures import Figure
from support.servers.etcd import EtcdServer

__all__ = ["etcd"]

_UNCONTENDED, _HANDOFF, _HEARTBEAT, _BEAT = 1.15, 2.0, 1.0, 25.0
_GRANTS = 300.0


def etcd(folder: Path, _url: str, _store: str, *, quick: bool) -> list[Figure]:
    """Everything that is measured on etcd.

    Raises:
        ServerMissing: There is no server to start.
    """
    found, _ = peers(PEERS)
    with EtcdServer() as server:
        remote = Remote(
            bench="etcd",
            store="lockkit, etcd",
            url=server.url(),
            requests=server.requests,
            cpu=partial(cpu_of, server.pid),
            floor=FLOOR,
            floors=(RAW,),
            woken=WOKEN,
            found=found,
            waiting=[name for name in found if name in WAITING],
            folder=folder,
            quick=quick,
        )
        return [
            *remote.uncontended(_UNCONTENDED),
            *remote.handoff(_HANDOFF),
            *remote.contended(4, at_least=_GRANTS),
            *remote.crowds(),
            *remote.held(_HEARTBEAT, _BEAT),
        ]
