"""The benches of one host, with other libraries taking turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.contenders import HERE, peers
from lockkit.testing.bench import calls, processes
from lockkit.testing.bench import contended as contention
from lockkit.testing.bench.figures import Figure

__all__ = ["contended", "handoff", "to_the_fastest", "uncontended"]

_TO_FLOOR = "acquire + release, to the floor"


def uncontended(folder: Path, url: str, store: str, *, quick: bool) -> list[Figure]:
    """Acquire + release, nobody else there; lockkit is to be ahead of filelock."""
    found, _ = peers()
    figures = calls.uncontended(folder, url, store, quick=quick, beside=found, contenders=HERE)
    ratios = {each.contender: each.value for each in figures if each.what == _TO_FLOOR}
    if "filelock" not in ratios:
        return figures
    target = f"ahead of filelock ({ratios['filelock']:.2f} x)"
    return [
        replace(each, target=target, met=each.value < ratios["filelock"])
        if (each.contender, each.what) == (store, _TO_FLOOR)
        else each
        for each in figures
    ]


def handoff(folder: Path, url: str, store: str, *, quick: bool) -> list[Figure]:
    """From just before release in one process to acquired in another that waits."""
    found, _ = peers()
    figures = processes.handoff(folder, url, store, quick=quick, beside=found, contenders=HERE)
    return to_the_fastest(figures, store, found)


def contended(folder: Path, url: str, store: str, *, quick: bool) -> list[Figure]:
    """Eight processes that all want one lock."""
    found, _ = peers()
    return contention.contended(folder, url, store, quick=quick, beside=found, contenders=HERE)


def to_the_fastest(figures: Sequence[Figure], store: str, found: Sequence[str]) -> list[Figure]:
    """The figures of a hand-off and, behind the store's median, the same with the fastest library's as its target."""
    medians = [each.value for each in figures if each.what == "median" and each.contender in found]
    told: list[Figure] = []
    for each in figures:
        told.append(each)
        if medians and (each.contender, each.what) == (store, "median"):
            target, met = f"<= fastest peer ({min(medians):.2f} ms)", each.value <= min(medians)
            told.append(replace(each, what="median, to its peers", target=target, met=met))
    return told
