"""Contention: several processes that all want one lock, and release it at once.

A lock is judged by three figures together: grants a second, the share of the process that got the fewest, and the longest wait
of all. A lock without a queue can grant more, because the process that has just released it takes it again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from lockkit.testing.bench.figures import Figure
from lockkit.testing.bench.floors import FLOCK, HERE
from lockkit.testing.bench.rounds import interleaved
from lockkit.testing.bench.workers import Worker, started

__all__ = ["Contest", "contended", "contests"]

_PROCESSES, _BUSY = 8, 2
_FEWER = 4
"""Processes on a store whose server has most of the work."""
_WORST, _GRANTS = 50.0, 3000.0
_START = 0.05
"""Seconds from the word to the start, so that all processes start together."""


@dataclass(frozen=True, slots=True)
class Contest:
    """One round of one contender.

    Attributes:
        grants: The grants of each process.
        seconds: The time in which they were counted.
        worst: The longest wait of any process, in seconds.
        clients: The CPU seconds of all processes.
        server: The CPU seconds of the server; 0.0 if nobody counts them.
    """

    grants: Sequence[int]
    seconds: float
    worst: float
    clients: float
    server: float

    @property
    def rate(self) -> float:
        """Grants a second."""
        return sum(self.grants) / self.seconds

    @property
    def fewest(self) -> float:
        """The grants of the process that got the fewest, to an equal share."""
        return min(self.grants) * len(self.grants) / max(1, sum(self.grants))


def contended(
    folder: Path, url: str, store: str, *, quick: bool, beside: Sequence[str] = (), contenders: str = HERE
) -> list[Figure]:
    """Grants to processes that want one lock: how many, to whom, after which wait, at which cost; also beside busy processes."""
    if url.startswith("memory:"):  # processes do not share it
        return []
    local = url.startswith("sqlite:")
    names = [*([FLOCK] if local else ()), store, *beside]
    count = _PROCESSES if local or url.startswith(("redis", "valkey", "rediss", "unix")) else _FEWER
    figures = contests(folder, url, names, count, quick=quick, contenders=contenders)
    if not local:
        return figures
    figures += contests(folder, url, names, count, quick=quick, contenders=contenders, busy=_BUSY)
    return [_aimed(each) if each.contender == store else each for each in figures]


def _aimed(figure: Figure) -> Figure:
    """The figure of the embedded store, with its target."""
    if figure.what.startswith("longest wait") and "busy" in figure.what:
        return figure.at_most(_WORST)
    return figure.at_least(_GRANTS) if figure.unit == "/s" and "busy" not in figure.what else figure


def contests(
    folder: Path,
    url: str,
    names: Sequence[str],
    count: int,
    *,
    quick: bool,
    contenders: str = HERE,
    server: Callable[[], float] | None = None,
    busy: int = 0,
) -> list[Figure]:
    """The rounds of several contenders, in turns.

    Args:
        folder: A folder for files.
        url: The store.
        names: The contenders.
        count: The processes of each contender.
        quick: Whether rounds are fewer and shorter.
        contenders: The module whose function ``opened`` makes the contenders.
        server: Returns the CPU seconds that the server has used so far.
        busy: The number of other processes that use up the processors meanwhile.
    """
    rounds, seconds = (3, 0.4) if quick else (9, 1.0)
    with ExitStack() as stack:
        workers = {
            name: [
                stack.enter_context(started("contender", name, str(folder), url, contenders))
                for _ in range(count)
            ]
            for name in names
        }
        others = [stack.enter_context(started("busy")) for _ in range(busy)]
        for worker in (*(each for some in workers.values() for each in some), *others):
            worker.hear()
        taken = interleaved(
            {name: partial(_contest, workers[name], seconds, server) for name in names}, rounds
        )
    beside = f" beside {busy} busy processes" if busy else ""
    return [
        figure for name in names for figure in _figures(name, count, taken[name], beside, served=bool(server))
    ]


def _contest(workers: Sequence[Worker], seconds: float, server: Callable[[], float] | None) -> Contest:
    """Have all processes of one contender want the lock for some seconds."""
    spent = server() if server else 0.0
    start = time.monotonic() + _START
    for worker in workers:
        worker.tell(f"{start} {start + seconds}")
    answers: list[Any] = [worker.hear() for worker in workers]
    return Contest(
        [each["grants"] for each in answers],
        seconds,
        max(each["worst"] for each in answers),
        sum(each["cpu"] for each in answers),
        server() - spent if server else 0.0,
    )


def _figures(name: str, count: int, taken: Sequence[Contest], beside: str, *, served: bool) -> list[Figure]:
    def figure(what: str, value: float, unit: Any) -> Figure:
        return Figure("contended", name, what + beside, value, unit)

    grants = [max(1, sum(each.grants)) for each in taken]
    figures = [
        figure(f"{count} processes on one name: grants", median(each.rate for each in taken), "/s"),
        figure(
            "fewest grants of a process, of an equal share", median(each.fewest for each in taken) * 100, "%"
        ),
        figure(f"longest wait in {len(taken)} rounds", max(each.worst for each in taken) * 1e3, "ms"),
        figure("longest wait, median of the rounds", median(each.worst for each in taken) * 1e3, "ms"),
    ]
    if beside:
        return figures
    clients = median(each.clients / many for each, many in zip(taken, grants, strict=True)) * 1e6
    figures.append(figure("CPU of the clients for one grant", clients, "us"))
    if served:
        spent = median(each.server / many for each, many in zip(taken, grants, strict=True)) * 1e6
        figures.append(figure("CPU of the server for one grant", spent, "us"))
    return figures
