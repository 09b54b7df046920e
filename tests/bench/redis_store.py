"""Redis: what lockkit costs on it, beside what no lock there can beat and the libraries that people use for it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bench.contenders import peers
from bench.redis_contenders import AWAKE, FAIR, FLOOR, PEERS, PLAIN, RAW, RECORDED, WOKEN
from bench.remote import Remote, cpu_of
from lockkit.store.spi import Claim
from lockkit.testing.bench.client import connected
from lockkit.testing.bench.figures import Figure
from lockkit.values.names import new_token

if TYPE_CHECKING:
    from support.servers.redis import RedisServer

__all__ = ["redis"]

_STORE = "lockkit, Redis"
_UNCONTENDED, _HANDOFF, _POSITION, _HEARTBEAT = 1.25, 2.0, 0.2, 0.5
_IN_TURN = {"acquire + release": 1.5, "CPU of the client": 2.0, "CPU of the server": 1.6}
_SERVED = 130.0


def redis(folder: Path, _url: str, _store: str, *, quick: bool) -> list[Figure]:
    """Everything that is measured on Redis.

    Raises:
        ServerMissing: There is no server to start, or no client for it.
    """
    from lockkit.testing.processes import ServerMissing

    found, missing = peers(PEERS)
    if "redis" in missing:
        raise ServerMissing("redis-py is not installed; run: pip install 'lockkit[redis]'")
    from support.servers.redis import RedisServer

    with RedisServer() as server:
        remote = Remote(
            bench="redis",
            store=_STORE,
            url=server.url(),
            requests=server.requests,
            cpu=partial(cpu_of, server.pid),
            floor=FLOOR,
            floors=(RAW, AWAKE, PLAIN),
            awake=AWAKE,
            woken=WOKEN,
            found=found,
            waiting=found,
            folder=folder,
            quick=quick,
        )
        return [
            *remote.uncontended(_UNCONTENDED, _IN_TURN),
            *remote.handoff(_HANDOFF),
            *remote.contended(
                8,
                server=_SERVED,
                fair=[name for name in found if name == "python-redis-lock"],
                floors=(FAIR, RECORDED),
            ),
            *remote.crowds(),
            _position(folder, server, quick=quick),
            *remote.held(_HEARTBEAT),
        ]


def _position(folder: Path, server: RedisServer, *, quick: bool) -> Figure:
    """The time that the server spends on telling a waiter its place, by the server's own count."""
    waiters = 200 if quick else 1000
    with connected(server.url(), folder) as client:
        lock = client.lock("position")
        backend = client.driver().backend
        with lock.acquire():
            claims = [Claim(new_token(), lock.terms, True) for _ in range(waiters)]
            for claim in claims:
                backend.acquire(claim, True, 2.0)
            before = server.commands()["evalsha"]
            for claim in claims:
                backend.acquire(claim, False, 2.0)
            after = server.commands()["evalsha"]
    spent = (int(after["usec"]) - int(before["usec"])) / (int(after["calls"]) - int(before["calls"])) / 1e3
    return Figure(
        "redis", _STORE, f"a place among {waiters:,} waiters: time of the server", spent, "ms"
    ).at_most(_POSITION)
