"""The command line of the benchmark."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from lockkit.testing.bench.calls import pipeline, uncontended
from lockkit.testing.bench.contenders import INSTALL, PEERS, peers, unusable
from lockkit.testing.bench.etcd_contenders import PEERS as ETCD_PEERS
from lockkit.testing.bench.etcd_store import etcd
from lockkit.testing.bench.figures import Figure, document, progress, sentence, table
from lockkit.testing.bench.processes import handoff, held, stall, startup
from lockkit.testing.bench.redis_contenders import PEERS as REDIS_PEERS
from lockkit.testing.bench.redis_store import redis
from lockkit.testing.bench.workers import quiet
from lockkit.testing.bench.zookeeper_contenders import PEERS as ZOOKEEPER_PEERS
from lockkit.testing.bench.zookeeper_store import zookeeper
from lockkit.testing.servers.processes import ServerMissing

__all__ = ["BENCHES", "main"]

BENCHES: Mapping[str, Callable[..., list[Figure]]] = {
    "uncontended": uncontended,
    "pipeline": pipeline,
    "hand-off": handoff,
    "stall": stall,
    "held": held,
    "start-up": startup,
    "redis": redis,
    "etcd": etcd,
    "zookeeper": zookeeper,
}
"""Every bench by name: ``bench(folder, url, store, quick=...) -> figures``."""
_PEERS = {"redis": REDIS_PEERS, "etcd": ETCD_PEERS, "zookeeper": ZOOKEEPER_PEERS}


def main(args: Sequence[str] | None = None) -> int:
    """Run benches and print what they found.

    A bench whose server is not installed is left out, which is said; if it was asked for by name, that is an error.

    Returns:
        0; that a target is missed is printed, and is no failure: machines differ. 69 without the server.
    """
    options = _options(args)
    began = time.monotonic()
    found: list[Figure] = []
    wanted = options.bench or BENCHES
    libraries = [PEERS, *(_PEERS[name] for name in wanted if name in _PEERS)]
    missing = [name for some in libraries for name in peers(some)[1]]
    for name in missing:
        if why := unusable(name):
            sys.stderr.write(f"left out: {name}: {why}\n")
    with quiet(), tempfile.TemporaryDirectory(prefix="lockkit-bench-") as folder:
        url = options.url or f"sqlite:{folder}/lockkit.db"
        store = f"lockkit, {'SQLite' if url.startswith('sqlite:') else url.partition(':')[0]}"
        for name in wanted:
            progress(name)
            try:
                found += BENCHES[name](Path(folder), url, store, quick=options.quick)
            except ServerMissing as error:
                if options.bench:
                    told = json.dumps(_missing(name, error)) if options.json else f"left out: {name}: {error}"
                    sys.stderr.write(f"{told}\n")
                    return 69
                sys.stderr.write(f"left out: {name}: {error}\n")
    if options.json:
        written = document(found, missing, time.monotonic() - began, quick=options.quick)
        sys.stdout.write(json.dumps(written) + "\n")
        return 0
    sys.stdout.write(f"{table(found)}\n\n{sentence()}{', quick' if options.quick else ''}\n")
    if missing:
        wanted = " ".join(INSTALL.get(name, name) for name in missing)
        sys.stderr.write(f"missing, so not measured: {', '.join(missing)}; pip install {wanted}\n")
    return 0


def _missing(name: str, error: ServerMissing) -> dict[str, object]:
    """The document of schema ``lockkit.error/1``."""
    return {
        "schema": "lockkit.error/1",
        "error": "missing",
        "message": f"{name}: {error}",
        "name": None,
        "holder": None,
        "hint": None,
        "exit_code": 69,
    }


class _Parser(argparse.ArgumentParser):
    """Usage errors end with 64, as everywhere in lockkit."""

    def error(self, message: str) -> NoReturn:
        self.exit(64, f"{self.prog}: {message}\n")


def _options(args: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(
        "lockkit bench", description="Measure locks on this machine. Compare figures of one run only."
    )
    parser.add_argument("bench", nargs="*", help=f"which: {', '.join(BENCHES)}; all by default")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, for a first impression")
    parser.add_argument("--json", action="store_true", help="a document of schema lockkit.bench/1")
    parser.add_argument("--url", help="a store to measure in place of SQLite in a temporary folder")
    options = parser.parse_args(args)
    unknown = [name for name in options.bench if name not in BENCHES]
    if unknown:
        parser.error(f"no such bench: {', '.join(unknown)}; there is {', '.join(BENCHES)}")
    return options
