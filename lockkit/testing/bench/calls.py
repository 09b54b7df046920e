"""The cost of the calls: acquire + release when nobody else wants the lock, and the release pipeline's own share.

A loop of one lock's calls finds every cache warm, and the server awake. A program takes a lock between other work. So the same is
measured in turns of one operation each: every contender finds what the others have left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import lockkit
from lockkit.lib.namedtuples import NamedTuple
from lockkit.store.spi import Claim
from lockkit.testing.bench.client import connected
from lockkit.testing.bench.contender import Contender
from lockkit.testing.bench.figures import Figure
from lockkit.testing.bench.floors import FLOOR, HERE, MEMORY, opener
from lockkit.testing.bench.rounds import interleaved, per_call, ratio
from lockkit.values.names import new_token

__all__ = ["in_turn", "paired", "pipeline", "uncontended"]

_CORE, _PIPELINE = 25.0, 15.0
"""The targets, in microseconds: for the core's own share, and for the share of the release pipeline."""


def uncontended(
    folder: Path, url: str, store: str, *, quick: bool, beside: Sequence[str] = (), contenders: str = HERE
) -> list[Figure]:
    """Acquire + release of a lock that nobody else uses: lockkit and its floor in turns. Only SQLite has a floor on this host.

    Args:
        folder: A folder for files.
        url: The store.
        store: The name of lockkit on that store in the figures.
        quick: Whether rounds are fewer and counts smaller.
        beside: The names of further contenders.
        contenders: The module whose function ``opened`` makes the contenders.
    """
    floor = [FLOOR] if url.startswith("sqlite:") else []
    rounds, count = (7, 60) if quick else (41, 200)
    names = [*floor, *beside, store, MEMORY]
    with opener(contenders)(names, folder, url) as made:
        taken = interleaved({name: paired(made[name].both, count) for name in names}, rounds)
        turning = {name: made[name] for name in (*floor, *beside, store)}
        turns = in_turn("uncontended", turning, floor[0] if floor else "", quick=quick)
    what = "acquire + release"
    times = {name: median(values) * 1e6 for name, values in taken.items()}
    figures = [Figure("uncontended", name, what, times[name], "us") for name in (*floor, *beside, store)]
    if floor:
        to_floor = {name: ratio(values, taken[FLOOR]) for name, values in taken.items()}
        what_share = f"{what}, to the floor"
        figures += [Figure("uncontended", name, what_share, to_floor[name], "x") for name in (*beside, store)]
    figures.append(
        Figure("uncontended", MEMORY, f"{what}: the core's own share", times[MEMORY], "us").at_most(_CORE)
    )
    return [*figures, *turns]


def paired(both: Callable[[], None], count: int) -> Callable[[], float]:
    """A measure for :func:`~lockkit.testing.bench.rounds.interleaved`: seconds of one acquire + release."""
    return lambda: per_call(both, count)


class _Spent(NamedTuple):
    """The cost of one acquire + release, in seconds: of time, of this process's CPU, and of the server's."""

    time: float
    client: float
    server: float


def in_turn(
    bench: str,
    made: Mapping[str, Contender],
    floor: str,
    *,
    quick: bool,
    server: Callable[[], float] | None = None,
) -> list[Figure]:
    """Acquire + release in turns of one operation each: the time, and the CPU time of client and server.

    Args:
        bench: The name of the bench in the figures.
        made: The contenders.
        floor: The contender to which ratios are computed; empty for none.
        quick: Whether there are fewer turns.
        server: Returns the CPU seconds that the server has used so far.
    """
    names, turns = list(made), 200 if quick else 2000
    taken: dict[str, list[_Spent]] = {name: [] for name in names}
    for turn in range(turns):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            taken[name].append(_once(made[name], server))
    figures = []
    kinds = [("acquire + release, in turn", 0), ("CPU of the client, in turn", 1)]
    for what, at in [*kinds, *([("CPU of the server, in turn", 2)] if server else ())]:
        middles = {name: median(each[at] for each in taken[name]) for name in names}
        figures += [Figure(bench, name, what, middles[name] * 1e6, "us") for name in names]
        if middles.get(floor):
            figures += [
                Figure(bench, name, f"{what}, to the floor", middles[name] / middles[floor], "x")
                for name in names
                if name != floor
            ]
    return figures


def _once(contender: Contender, server: Callable[[], float] | None) -> _Spent:
    served = server() if server else 0.0
    used, began = process_time(), perf_counter()
    contender.both()
    taken, spent = perf_counter() - began, process_time() - used
    return _Spent(taken, spent, server() - served if server else 0.0)


def pipeline(folder: Path, url: str, store: str, *, quick: bool) -> list[Figure]:
    """The time of a release with all its layers, without cleanup hooks, minus the time of the store's own release of the same claim."""
    rounds, count = (7, 60) if quick else (41, 200)
    figures: list[Figure] = []
    for name, where in ((MEMORY, "memory:"), (store, url)):
        with connected(where, folder) as client:
            lock = client.lock("pipeline")
            backend = client.driver().backend

            def whole(lock: lockkit.Lock = lock) -> float:
                spent = []
                for _ in range(count):
                    lease = lock.acquire()
                    began = perf_counter()
                    lease.release()
                    spent.append(perf_counter() - began)
                return median(spent)

            def bare(lock: lockkit.Lock = lock, backend: object = backend) -> float:
                spent = []
                acquire, release = backend.acquire, backend.release  # type: ignore[attr-defined]
                for _ in range(count):
                    claim = Claim(new_token(), lock.terms)
                    acquire(claim, True, 2.0)
                    began = perf_counter()
                    release(claim, 2.0)
                    spent.append(perf_counter() - began)
                return median(spent)

            taken = interleaved({"whole": whole, "bare": bare}, rounds)
        own = median(one - other for one, other in zip(taken["whole"], taken["bare"], strict=True)) * 1e6
        figures.append(
            Figure("pipeline", name, "release, over the store's own", own, "us").at_most(_PIPELINE)
        )
    return figures
