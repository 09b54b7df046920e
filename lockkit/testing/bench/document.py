"""The JSON document of a run of the benchmark, as msgspec structs. The published schema is made from them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Annotated

from msgspec import Meta, Struct, to_builtins

from lockkit.testing.bench.figures import Figure, Unit, machine

__all__ = ["Bench", "document"]


class Machine(Struct):
    """The machine and the software that were measured."""

    cores: int | None
    architecture: str
    system: str
    python: str
    implementation: str
    sqlite: str
    lockkit: str


class Measured(Struct):
    """One figure. `target` is null if there is no target; `met` says whether the target was reached."""

    bench: str
    contender: str
    what: str
    value: float
    unit: Unit
    target: str | None
    met: bool | None


class Missing(Struct):
    """A library that was not measured, because it is not installed."""

    name: str
    install: str


class Bench(Struct, tag_field="schema", tag="lockkit.bench/1"):
    """The figures of one run of the benchmark. `at` is the time at which it ended; `quick` means fewer rounds and smaller counts."""

    at: Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
    took_seconds: Annotated[float, Meta(ge=0)]
    quick: bool
    machine: Machine
    figures: Sequence[Measured]
    missing: Sequence[Missing]


def document(
    figures: Sequence[Figure], missing: Mapping[str, str], seconds: float, *, quick: bool
) -> dict[str, object]:
    """The document of a run, as dicts and lists.

    Args:
        figures: The figures.
        missing: The libraries that are not installed, each with its name for pip.
        seconds: The seconds that the run took.
        quick: Whether rounds were fewer and counts smaller.
    """
    found = Bench(
        at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        took_seconds=round(seconds, 3),
        quick=quick,
        machine=Machine(**machine()),
        figures=[
            Measured(
                bench=figure.bench,
                contender=figure.contender,
                what=figure.what,
                value=round(figure.value, 4),
                unit=figure.unit,
                target=figure.target or None,
                met=figure.met,
            )
            for figure in figures
        ],
        missing=[
            Missing(name=name, install=f"pip install {wanted}") for name, wanted in sorted(missing.items())
        ],
    )
    made: dict[str, object] = to_builtins(found)
    return made
