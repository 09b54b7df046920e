"""Contention: several processes that all want one lock, and release it at once.

A lock is judged by three figures together: grants a second, the share of the process that got the fewest, and
the longest wait. A lock without a queue can grant more, because the process that released it takes it again.
"""

from __future__ import annotations

import random
import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from statistics import median
from typing import TypeAlias

from lockkit.testing.bench.figures import Figure
from lockkit.testing.bench.rounds import interleaved
from lockkit.testing.bench.trial import Contender, Maker, Trial
from lockkit.testing.bench.workers import Role, started

__all__ = ["contended", "handoff"]

_BUSY = 2
_START = 0.05
"""Seconds from the word to the start, so that all processes start together."""


def handoff(trial: Trial) -> list[Figure]:
    """The time from a release in one process until a waiter has the lock, and the CPU time of the wait."""
    names = [trial.woken, trial.store, *trial.waiting]
    rounds, long_wait = (8, 1.0) if trial.quick else (60, 3.0)
    with ExitStack() as stack:
        made = stack.enter_context(trial.opened(*names))
        workers = {name: stack.enter_context(started(_wait, trial.makers[name])) for name in names}
        for worker in workers.values():
            worker.recv()

        def once(name: str) -> float:
            # So that no poller is in step.
            return _hand(made[name], workers[name], random.uniform(0.02, 0.12))[0]

        taken = interleaved({name: partial(once, name) for name in names}, rounds)
        busy = {name: _hand(made[name], workers[name], long_wait)[1] / long_wait * 100 for name in names}
    lead = "" if trial.bench == "hand-off" else "hand-off, "
    medians = {name: median(taken[name]) * 1e3 for name in names}
    figures = []
    for name in names:
        figures.append(trial.figure(f"{lead}median", medians[name], "ms", name))
        if name == trial.store and trial.waiting:
            best = min(medians[peer] for peer in trial.waiting)
            aim = f"<= fastest peer ({best:.2f} ms)", medians[name] <= best
            figures.append(trial.figure(f"{lead}median, to its peers", medians[name], "ms", name, aim))
        # The 99th percentile of less than a hundred values is the greatest.
        figures += [
            trial.figure(f"{lead}p99", max(taken[name]) * 1e3, "ms", name),
            trial.figure(f"{lead}CPU of the waiter, of one core", busy[name], "%", name),
        ]
    if trial.counted:  # of any other store nothing is known that no hand-off can beat
        share = medians[trial.store] / medians[trial.woken]
        figures.append(trial.figure(f"{lead}median, to the floor", share, "x"))
    return figures


def _hand(contender: Contender, worker: Connection, wait: float) -> tuple[float, float]:
    """Hold the lock, and hand it over. Returns the seconds of the hand-off, and the worker's CPU seconds."""
    held = contender.acquire()
    worker.send(None)
    time.sleep(wait)
    began = time.monotonic()
    contender.release(held)
    at, cpu = worker.recv()
    return at - began, cpu


def _wait(maker: Maker) -> Role:
    """Wait for the lock, and release it. Yields the time of the grant, and the CPU seconds of the wait."""
    with ExitStack() as stack:
        contender = maker(stack)
        yield None
        while True:
            used = time.process_time()
            held = contender.acquire()
            taken = time.monotonic(), time.process_time() - used
            contender.release(held)
            yield taken


_Contest: TypeAlias = tuple[float, float, float, float, float]
"""One round of one contender: grants a second; the fewest grants of a process, to an equal share; the longest
wait; the CPU seconds of all processes, and those of the server, for one grant."""


def contended(trial: Trial) -> list[Figure]:
    """Grants to processes that want one lock: how many, to whom, after which wait, at which cost."""
    if trial.url.startswith("memory:"):  # processes do not share it
        return []
    # Half as many on a store whose server has most of the work.
    count = 8 if trial.url.startswith(("sqlite", "redis", "valkey", "unix")) else 4
    if trial.url.startswith("sqlite:"):
        return [*_contests(trial, count), *_contests(trial, count, _BUSY)]
    # The targets of the bench `contended` are those of the embedded store.
    return _contests(replace(trial, targets={}) if trial.bench == "contended" else trial, count)


def _contests(trial: Trial, count: int, busy: int = 0) -> list[Figure]:
    """The rounds of all contenders, in turns, beside ``busy`` other processes that compute."""
    names = [trial.store, *trial.queues, *trial.waiting]
    rounds, seconds = (3, 0.4) if trial.quick else (9, 1.0)
    with ExitStack() as stack:
        workers = {
            name: [stack.enter_context(started(_contend, trial.makers[name])) for _ in range(count)]
            for name in names
        }
        others = [stack.enter_context(started(_compute)) for _ in range(busy)]
        for worker in (*(each for some in workers.values() for each in some), *others):
            worker.recv()
        for worker in others:
            worker.send(None)
        taken = interleaved(
            {name: partial(_contest, trial, workers[name], seconds) for name in names}, rounds
        )
    beside = f" beside {busy} busy processes" if busy else ""
    return [figure for name in names for figure in _figures(trial, name, count, taken, beside)]


def _contest(trial: Trial, workers: list[Connection], seconds: float) -> _Contest:
    """Have all processes of one contender want the lock for some seconds."""
    served, start = trial.cpu(), time.monotonic() + _START
    for worker in workers:
        worker.send((start, start + seconds))
    grants, worst, used = zip(*(worker.recv() for worker in workers), strict=True)
    served, total = trial.cpu() - served, max(1, sum(grants))
    fewest = min(grants) * len(grants) / total
    return sum(grants) / seconds, fewest, max(worst), sum(used) / total, served / total


def _contend(maker: Maker) -> Role:
    """Acquire and release without pause until an end. Yields the grants, the longest wait, the CPU seconds.

    A grant after the end does not count, but the wait for it does.
    """
    with ExitStack() as stack:
        contender = maker(stack)
        acquire, release = contender
        contender.both()
        start, end = yield None
        while True:
            time.sleep(max(0.0, start - time.monotonic()))
            grants, worst, used = 0, 0.0, time.process_time()
            before = time.monotonic()
            while before < end:
                held = acquire()
                at = time.monotonic()
                release(held)
                worst = max(worst, at - before)
                grants += at < end
                before = time.monotonic()
            start, end = yield grants, worst, time.process_time() - used


def _compute() -> Role:
    """Use up a core, and do nothing else."""
    yield None
    while True:
        pass


def _figures(
    trial: Trial, name: str, count: int, taken: dict[str, list[_Contest]], beside: str
) -> list[Figure]:
    rate, fewest, worst, clients, server = map(median, zip(*taken[name], strict=True))
    longest = max(worst for _, _, worst, _, _ in taken[name])
    best = max((median(rate for rate, *_ in taken[peer]) for peer in trial.fair), default=0.0)
    aim = (f">= {best:g} /s", rate >= best) if best and name == trial.store else None
    figure = partial(trial.figure, who=name)
    figures = [
        figure(f"{count} processes on one name: grants{beside}", rate, "/s", aim=aim),
        figure(f"fewest grants of a process, of an equal share{beside}", fewest * 100, "%"),
        figure(f"longest wait in {len(taken[name])} rounds{beside}", longest * 1e3, "ms"),
        figure(f"longest wait, median of the rounds{beside}", worst * 1e3, "ms"),
    ]
    if not beside:
        figures.append(figure("CPU of the clients for one grant", clients * 1e6, "us"))
    if trial.counted and not beside:
        figures.append(figure("CPU of the server for one grant", server * 1e6, "us"))
    return figures
