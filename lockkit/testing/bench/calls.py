"""What the calls cost: acquire + release when nobody else wants the lock, and the release pipeline's own share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import lockkit
from lockkit.names import new_token
from lockkit.store.spi import Claim
from lockkit.testing.bench.contenders import FLOOR, MEMORY, opened, peers
from lockkit.testing.bench.figures import Figure
from lockkit.testing.bench.rounds import interleaved, per_call, ratio

__all__ = ["paired", "pipeline", "uncontended"]

_CORE, _PIPELINE = 25.0, 15.0
"""Microseconds: the targets for the core's own share and for the release pipeline's."""


def uncontended(folder: Path, url: str, store: str, *, quick: bool) -> list[Figure]:
    """Acquire + release, nobody else there: lockkit, the floor and other libraries, taking turns."""
    found, _ = peers()
    names = [FLOOR, *found, store, MEMORY]
    rounds, count = (7, 60) if quick else (41, 200)
    with opened(names, folder, url) as made:
        taken = interleaved({name: paired(made[name].both, count) for name in names}, rounds)
    what = "acquire + release"
    times = {name: median(values) * 1e6 for name, values in taken.items()}
    ratios = {name: ratio(values, taken[FLOOR]) for name, values in taken.items()}
    figures = [Figure("uncontended", name, what, times[name], "us") for name in (FLOOR, *found)]
    figures += [Figure("uncontended", name, f"{what}, to the floor", ratios[name], "x") for name in found]
    figures.append(Figure("uncontended", store, what, times[store], "us"))
    target, met = "", None
    if "filelock" in ratios:
        target, met = f"ahead of filelock ({ratios['filelock']:.2f} x)", ratios[store] < ratios["filelock"]
    figures.append(Figure("uncontended", store, f"{what}, to the floor", ratios[store], "x", target, met))
    figures.append(
        Figure("uncontended", MEMORY, f"{what}: the core's own share", times[MEMORY], "us").at_most(_CORE)
    )
    return figures


def paired(both: Callable[[], None], count: int) -> Callable[[], float]:
    """A measure for :func:`~lockkit.testing.bench.rounds.interleaved`: seconds of one acquire + release."""
    return lambda: per_call(both, count)


def pipeline(folder: Path, url: str, store: str, *, quick: bool) -> list[Figure]:
    """A release with all its layers, without cleanup hooks, over the store's bare release of the same claim."""
    rounds, count = (7, 60) if quick else (41, 200)
    figures: list[Figure] = []
    for name, where in ((MEMORY, "memory:"), (store, url)):
        with lockkit.connect(where, state_dir=str(folder)) as client:
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
