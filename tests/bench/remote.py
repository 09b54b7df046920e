"""The benches of every kind of server, beside its floor and the libraries that people use on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from bench.contenders import HERE, opened
from bench.local import to_the_fastest
from lockkit.testing.bench.calls import in_turn, paired
from lockkit.testing.bench.contended import contests
from lockkit.testing.bench.figures import Figure, Unit
from lockkit.testing.bench.processes import handed_over, held
from lockkit.testing.bench.rounds import interleaved, ratio
from lockkit.testing.bench.workers import Worker, started

__all__ = ["Remote", "cpu_of"]

_REQUESTS = 6.0
_CROWDS = (2, 10, 100)
_NO_LIMITS: Mapping[str, float] = {}


@dataclass(frozen=True, slots=True)
class Remote:
    """A private server, started for the run and gone with it; whatever store the command line names is left alone.

    Attributes:
        bench: What the bench is called.
        store: What lockkit is called on it.
        url: Where the server is.
        requests: How many requests clients have sent to it so far, by its own count.
        cpu: The CPU seconds that it has used so far.
        floor: What no lock there can beat; to it all ratios are made.
        floors: The same in other ways.
        woken: What no hand-off there can beat.
        found: The libraries that are installed.
        waiting: The contenders that can wait.
        folder: For files.
        quick: Fewer rounds.
        awake: The floor that stays awake for an answer, where lockkit does too; else empty.
    """

    bench: str
    store: str
    url: str
    requests: Callable[[], int]
    cpu: Callable[[], float]
    floor: str
    floors: Sequence[str]
    woken: str
    found: Sequence[str]
    waiting: Sequence[str]
    folder: Path
    quick: bool
    awake: str = ""

    def uncontended(self, target: float, turns_of_one: Mapping[str, float] = _NO_LIMITS) -> list[Figure]:
        """Acquire + release, nobody else there, all taking turns: of a loop each, then of one operation each.

        Args:
            target: The most of a loop, to the floor.
            turns_of_one: The most of one operation each to the floor, by what is measured.
        """
        limits = {f"{what}, in turn, to the floor": limit for what, limit in turns_of_one.items()}
        names = [self.floor, *self.floors, *self.found, self.store]
        rounds, count = (7, 60) if self.quick else (41, 200)
        with opened(names, self.folder, self.url) as made:
            taken = interleaved({name: paired(made[name].both, count) for name in names}, rounds)
            turns = in_turn(self.bench, made, self.floor, quick=self.quick, server=self.cpu)
        what = "acquire + release"
        figures = [self._figure(name, what, median(taken[name]) * 1e6, "us") for name in names]
        for name in names[1:]:
            figure = self._figure(name, f"{what}, to the floor", ratio(taken[name], taken[self.floor]), "x")
            figures.append(figure.at_most(target) if name == self.store else figure)
        if self.awake:
            share = ratio(taken[self.store], taken[self.awake])
            figures.append(self._figure(self.store, f"{what}, to the floor that stays awake", share, "x"))
        return figures + [
            each.at_most(limits[each.what]) if each.contender == self.store and each.what in limits else each
            for each in turns
        ]

    def contended(
        self,
        count: int,
        *,
        at_least: float = 0.0,
        server: float | None = None,
        fair: Sequence[str] = (),
        floors: Sequence[str] = (),
    ) -> list[Figure]:
        """Processes that all want one lock.

        Args:
            count: The processes of each contender.
            at_least: Grants a second to reach; 0 for none.
            server: The most CPU time of the server for one grant, in microseconds.
            fair: The libraries that let nobody overtake; lockkit is to grant more than each.
            floors: What no fair lock there can beat.
        """
        found = contests(
            self.folder,
            self.url,
            [self.store, *floors, *self.waiting],
            count,
            quick=self.quick,
            contenders=HERE,
            server=self.cpu,
        )
        peers = [each.value for each in found if each.unit == "/s" and each.contender in fair]
        figures = []
        for each in found:
            figure = replace(each, bench=self.bench)
            if each.contender == self.store and each.unit == "/s":
                figure = figure.at_least(max([at_least, *peers])) if at_least or peers else figure
            elif each.contender == self.store and server is not None and "of the server" in each.what:
                figure = figure.at_most(server)
            figures.append(figure)
        return figures

    def handoff(self, target: float) -> list[Figure]:
        """From just before release in one process to acquired in another that waits."""
        taken = handed_over(
            self.folder,
            self.url,
            self.store,
            self.woken,
            quick=self.quick,
            beside=self.waiting,
            contenders=HERE,
        )
        medians = {each.contender: each.value for each in taken if each.what == "median"}
        figures = [
            replace(each, bench=self.bench, what=f"hand-off, {each.what}")
            for each in to_the_fastest(taken, self.store, self.waiting)
        ]
        share = medians[self.store] / medians[self.woken]
        figures.append(self._figure(self.store, "hand-off, median, to the floor", share, "x").at_most(target))
        return figures

    def crowds(self) -> list[Figure]:
        """Everything that waiters, each a client of its own, and holders send, by the hand-offs that came of it."""
        figures = []
        for waiters in _CROWDS:
            with started("crowd", self.url, str(self.folder), str(waiters), module="bench.crowd") as worker:
                worker.hear()
                before, first = self.requests(), _answer(worker)
                time.sleep(1.0 if self.quick else 5.0)
                after, last = self.requests(), _answer(worker)
            share = (after - before) / (last - first)
            figure = self._figure(self.store, f"requests per hand-off, {waiters} waiters", share, "calls")
            figures.append(figure.at_most(_REQUESTS))
        return figures

    def held(self, share: float, requests: float | None = None) -> list[Figure]:
        """Many held locks: what a beat costs, in percent of a core and in requests."""
        figures = []
        taken = held(self.folder, self.url, self.store, quick=self.quick, requests=self.requests)
        for each in taken:
            figure = replace(each, bench=self.bench)
            if each.unit == "%":
                figure = figure.at_most(share)
            elif requests is not None and "requests" in each.what:
                figure = figure.at_most(requests)
            figures.append(figure)
        return figures

    def _figure(self, contender: str, what: str, value: float, unit: Unit) -> Figure:
        return Figure(self.bench, contender, what, value, unit)


def cpu_of(pid: int) -> float:
    """The CPU seconds that the threads of a process have used so far, to the microsecond.

    A process's own count has the kernel's ticks, of 10 ms.
    """
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text(encoding="ascii").split()[0])
        except FileNotFoundError:  # it has ended
            continue
    return total / 1e9


def _answer(worker: Worker) -> int:
    worker.tell("count")
    return int(worker.hear())
