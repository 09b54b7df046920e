"""The cost of acquire + release when nobody else wants the lock, and the release pipeline's own share.

A loop of one lock's calls finds every cache warm, and the server awake. A program takes a lock between other
work. So the same is measured in turns of one operation each: every contender finds what the others have left.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from operator import sub
from statistics import median
from time import process_time

import lockkit
from lockkit.store.spi import Backend, Claim
from lockkit.testing.bench.figures import Figure
from lockkit.testing.bench.rounds import looped, orders, ratio, timed
from lockkit.testing.bench.trial import MEMORY, Contender, Trial, connected
from lockkit.values.names import new_token

__all__ = ["core", "pipeline", "uncontended"]

_BOTH = "acquire + release"


def uncontended(trial: Trial) -> list[Figure]:
    """Acquire + release of a lock that nobody else uses, in turns of a loop and of one operation each."""
    names = [*trial.floors, *trial.peers, trial.store]
    with trial.opened(*names) as made:
        taken = looped({name: partial(timed, each.both) for name, each in made.items()}, quick=trial.quick)
        in_turn = _in_turn(trial, made)
    figures = [trial.figure(_BOTH, median(taken[name]) * 1e6, "us", name) for name in names]
    if trial.floors:
        first, *others = names
        ratios = {name: ratio(taken[name], taken[first]) for name in others}
        for name, value in ratios.items():
            bound = ratios.get(trial.slower) if name == trial.store else None
            aim = (f"ahead of {trial.slower} ({bound:.2f} x)", value < bound) if bound else None
            figures.append(trial.figure(f"{_BOTH}, to the floor", value, "x", name, aim))
    if trial.awake:
        share = ratio(taken[trial.store], taken[trial.awake])
        figures.append(trial.figure(f"{_BOTH}, to the floor that stays awake", share, "x"))
    return [*figures, *in_turn]


def _in_turn(trial: Trial, made: Mapping[str, Contender]) -> list[Figure]:
    """The time of one acquire + release, and the CPU time of client and server."""
    taken: dict[str, list[tuple[float, float, float]]] = {name: [] for name in made}
    for order in orders(made, 200 if trial.quick else 2000):
        for name in order:
            served, used = trial.cpu(), process_time()
            wall = timed(made[name].both)
            taken[name].append((wall, process_time() - used, trial.cpu() - served))
    figures = []
    for at, of in enumerate([_BOTH, "CPU of the client", *(["CPU of the server"] if trial.counted else [])]):
        what = f"{of}, in turn"
        middles = {name: median(each[at] for each in values) for name, values in taken.items()}
        figures += [trial.figure(what, middle * 1e6, "us", name) for name, middle in middles.items()]
        if trial.floors and (floor := middles.pop(trial.floors[0])):
            figures += [
                trial.figure(f"{what}, to the floor", middle / floor, "x", name)
                for name, middle in middles.items()
            ]
    return figures


def core(trial: Trial) -> list[Figure]:
    """Acquire + release in memory: what lockkit costs without a store."""
    with trial.opened(MEMORY) as made:
        taken = looped({MEMORY: partial(timed, made[MEMORY].both)}, quick=trial.quick)
    return [trial.figure(f"{_BOTH}: the core's own share", median(taken[MEMORY]) * 1e6, "us", MEMORY)]


def pipeline(trial: Trial) -> list[Figure]:
    """The time of a release without cleanup hooks, minus the time of the store's own release."""
    figures = []
    for name, url in ((MEMORY, "memory:"), (trial.store, trial.url)):
        with connected(url, trial.folder) as client:
            lock, backend = client.lock("pipeline"), client.driver().backend

            def whole(lock: lockkit.Lock = lock) -> float:
                return timed(lock.acquire().release)

            def bare(lock: lockkit.Lock = lock, backend: Backend = backend) -> float:
                claim = Claim(new_token(), lock.terms)
                backend.acquire(claim, True, 2.0)
                return timed(partial(backend.release, claim, 2.0))

            taken = looped({"whole": whole, "bare": bare}, quick=trial.quick)
        own = median(map(sub, taken["whole"], taken["bare"])) * 1e6
        figures.append(trial.figure("release, over the store's own", own, "us", name))
    return figures
