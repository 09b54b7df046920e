"""Redis: what lockkit costs on it, beside what no lock there can beat and the libraries that people use for it.

All on a private server, started for the run and gone with it; whatever store the command line names is left alone.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import lockkit
from lockkit.names import new_token
from lockkit.spi import Claim
from lockkit.testing.bench.calls import paired
from lockkit.testing.bench.contenders import opened, peers
from lockkit.testing.bench.figures import Figure
from lockkit.testing.bench.processes import handed_over, held
from lockkit.testing.bench.redis_contenders import FLOOR, PEERS, RAW, WOKEN
from lockkit.testing.bench.rounds import interleaved, ratio
from lockkit.testing.bench.workers import Worker, started

if TYPE_CHECKING:
    from lockkit.testing.servers.redis import RedisServer

__all__ = ["redis"]

_STORE = "lockkit, Redis"
_UNCONTENDED, _HANDOFF, _REQUESTS, _POSITION, _HEARTBEAT = 1.25, 2.0, 6.0, 0.2, 0.5
_CROWDS = (2, 10, 100)
# fmt: off
_INSIDE = frozenset({
    "del", "exists", "get", "hdel", "hget", "hmget", "hset", "pexpire", "pexpireat", "publish", "set", "time",
    "zadd", "zrange", "zrangebyscore", "zrank", "zrem", "zremrangebyscore", "zscore",
})
# fmt: on
"""What the scripts call: the server counts it as if a client had asked for it."""


def redis(folder: Path, _url: str, _store: str, *, quick: bool) -> list[Figure]:
    """Everything that is measured on Redis.

    Raises:
        ServerMissing: There is no server to start, or no client for it.
    """
    from lockkit.testing.servers.processes import ServerMissing

    found, missing = peers(PEERS)
    if "redis" in missing:
        raise ServerMissing("redis-py is not installed; run: pip install 'lockkit[redis]'")
    from lockkit.testing.servers.redis import RedisServer

    with RedisServer() as server:
        return [
            *_uncontended(folder, server.url(), found, quick=quick),
            *_handoff(folder, server.url(), found, quick=quick),
            *_requests(folder, server, quick=quick),
            _position(folder, server, quick=quick),
            *_held(folder, server.url(), quick=quick),
        ]


def _uncontended(folder: Path, url: str, found: list[str], *, quick: bool) -> list[Figure]:
    names = [FLOOR, RAW, *found, _STORE]
    rounds, count = (7, 60) if quick else (41, 200)
    with opened(names, folder, url) as made:
        taken = interleaved({name: paired(made[name].both, count) for name in names}, rounds)
    what = "acquire + release"
    figures = [Figure("redis", name, what, median(taken[name]) * 1e6, "us") for name in names]
    for name in names[1:]:
        figure = Figure("redis", name, f"{what}, to the floor", ratio(taken[name], taken[FLOOR]), "x")
        figures.append(figure.at_most(_UNCONTENDED) if name == _STORE else figure)
    return figures


def _handoff(folder: Path, url: str, found: list[str], *, quick: bool) -> list[Figure]:
    taken = handed_over(folder, url, _STORE, WOKEN, found, quick=quick)
    medians = {each.contender: each.value for each in taken if each.what == "median"}
    figures = [replace(each, bench="redis", what=f"hand-off, {each.what}") for each in taken]
    share = medians[_STORE] / medians[WOKEN]
    figures.append(Figure("redis", _STORE, "hand-off, median, to the floor", share, "x").at_most(_HANDOFF))
    return figures


def _requests(folder: Path, server: RedisServer, *, quick: bool) -> list[Figure]:
    """Everything that waiters, each a client of its own, and holders send, by the hand-offs that came of it."""
    figures = []
    for waiters in _CROWDS:
        with started("crowd", server.url(), str(folder), str(waiters)) as worker:
            worker.hear()
            before, first = _calls(server), _answer(worker)
            time.sleep(1.0 if quick else 5.0)
            after, last = _calls(server), _answer(worker)
        sent = (after - before).total()
        figure = Figure(
            "redis", _STORE, f"requests per hand-off, {waiters} waiters", sent / (last - first), "calls"
        )
        figures.append(figure.at_most(_REQUESTS))
    return figures


def _answer(worker: Worker) -> int:
    worker.tell("count")
    return int(worker.hear())


def _calls(server: RedisServer) -> Counter[str]:
    """How often each command was asked for by a client."""
    return Counter(
        {
            name: int(facts["calls"])
            for name, facts in _commands(server).items()
            if name not in _INSIDE and name != "info"
        }
    )


def _commands(server: RedisServer) -> dict[str, Mapping[str, str]]:
    lines = server.cli("INFO", "commandstats").decode().splitlines()
    return {
        name.removeprefix("cmdstat_"): dict(fact.split("=", 1) for fact in facts.split(","))
        for name, _, facts in (line.partition(":") for line in lines if line.startswith("cmdstat_"))
    }


def _position(folder: Path, server: RedisServer, *, quick: bool) -> Figure:
    """What the server spends on telling a waiter its place, by its own count."""
    waiters = 200 if quick else 1000
    with lockkit.connect(server.url(), state_dir=str(folder)) as client:
        lock = client.lock("position")
        backend = client.driver().backend
        with lock.acquire():
            claims = [Claim(new_token(), lock.terms, True) for _ in range(waiters)]
            for claim in claims:
                backend.acquire(claim, True, 2.0)
            before = _commands(server)["evalsha"]
            for claim in claims:
                backend.acquire(claim, False, 2.0)
            after = _commands(server)["evalsha"]
    spent = (int(after["usec"]) - int(before["usec"])) / (int(after["calls"]) - int(before["calls"])) / 1e3
    return Figure(
        "redis", _STORE, f"a place among {waiters:,} waiters: time of the server", spent, "ms"
    ).at_most(_POSITION)


def _held(folder: Path, url: str, *, quick: bool) -> list[Figure]:
    figures = [replace(each, bench="redis") for each in held(folder, url, _STORE, quick=quick)]
    return [each.at_most(_HEARTBEAT) if each.unit == "%" else each for each in figures]
