"""The command line: the benches of ``lockkit bench`` beside other libraries, and those of private servers."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from bench import served
from bench.asynchronous import PEERS as ASYNCIO_PEERS
from bench.asynchronous import on_etcd, on_redis
from bench.contenders import PEERS, installed, makers, missing
from bench.stores import measured
from lockkit.testing.bench import command
from lockkit.testing.bench.command import ASYNCIO, Bench
from lockkit.testing.bench.figures import Figure
from lockkit.testing.bench.trial import Trial

__all__ = ["BENCHES", "main"]


def _beside(bench: Bench, trial: Trial) -> list[Figure]:
    """A bench of one host beside the libraries for that."""
    found = installed(PEERS["local"])
    contenders = {**trial.makers, **makers("local", str(trial.folder))}
    return bench.measure(replace(trial, makers=contenders, peers=found, waiting=found, slower="filelock"))


_SERVED = {"hand-off, CPU*": 2, "hand-off, *to the floor": 2, "requests per hand-off*": 6, "memory of*": 4}
_ETCD = {"*release, to the floor": 1.15, "*: grants": 300, "heartbeat*CPU*": 1, "heartbeat*requests*": 25}
_ZOOKEEPER = {"*release, to the floor": 1.25, "heartbeat*CPU*": 1, "heartbeat*requests*": 10}
_REDIS = {
    "*release, to the floor": 1.25,
    "*release, in turn, to the floor": 1.5,
    "CPU of the client, in turn, to the floor": 2,
    "CPU of the server, in turn, to the floor": 1.6,
    "CPU of the server for one grant": 130,
    "a place among*": 0.2,
    "heartbeat*CPU*": 0.5,
}

BENCHES: Mapping[str, Bench] = {
    **command.BENCHES,
    **{
        name: Bench(partial(_beside, bench), bench.targets, PEERS["local"])
        for name, bench in command.BENCHES.items()
        if name in {"uncontended", "hand-off", "contended"}
    },
    "redis": Bench(measured, _SERVED | _REDIS, PEERS["redis"]),
    "redis-asyncio": Bench(on_redis, ASYNCIO | {"*, to redis.asyncio": 0.9}, {"redis": "redis"}),
    "etcd": Bench(measured, _SERVED | _ETCD, PEERS["etcd"]),
    "etcd-asyncio": Bench(on_etcd, ASYNCIO, ASYNCIO_PEERS),
    "zookeeper": Bench(measured, _SERVED | _ZOOKEEPER, PEERS["zookeeper"]),
    **{f"served-{kind}": Bench(partial(served.measured, kind)) for kind in ("sqlite", "redis", "etcd")},
}
"""Every bench by name."""


def main(args: Sequence[str] | None = None) -> int:
    """Run benches and print what they found, as :func:`lockkit.testing.bench.command.main` does."""
    names = ", ".join(BENCHES)
    parser = argparse.ArgumentParser("python tests/bench", description="Compare figures of one run only.")
    parser.add_argument("names", nargs="*", metavar="BENCH", help=f"{names}; the default is all")
    parser.add_argument("--quick", action="store_true", help="use fewer rounds and smaller counts")
    parser.add_argument("--json", action="store_true", help="print a document of the schema lockkit.bench/1")
    parser.add_argument("--url", default="", help="the store of the benches of this host, instead of SQLite")
    options = parser.parse_args(args)
    if unknown := set(options.names) - {*BENCHES}:
        parser.exit(64, f"no such bench: {', '.join(unknown)}; the benches are {names}\n")
    return command.main(**vars(options), benches=BENCHES, missing=missing)
