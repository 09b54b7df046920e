"""A mutant, a deliberate mistake in lockkit, and the attempt to catch it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from lockkit.lib.clock import Clock
from lockkit.store.spi import Backend
from support.simulation import SETUPS, Faults, Setup, World, incident, schedules
from support.simulation.stores import Atomic, ModelStore

__all__ = ["Mutant", "Trial", "patched", "through_the_interface"]

Wrap = Callable[[Backend, Clock], Any]
"""Puts a faulty layer around a backend, through the public interface."""


@contextmanager
def patched(owner: Any, **replacements: object) -> Iterator[None]:
    """Replace attributes of a class or module, and put them back."""
    kept = {name: getattr(owner, name) for name in replacements}
    for name, value in replacements.items():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(owner, name, value)


def through_the_interface(wrap: Wrap) -> Callable[..., ModelStore]:
    """A model store with a faulty layer before it."""

    def make(clock: Any) -> ModelStore:
        store = Atomic(clock)
        store.backend = wrap(store.backend, clock)
        return store

    return make


@dataclass(frozen=True, slots=True)
class Trial:
    """The outcome of a mutant: which promises it broke, in how many runs, and the first story."""

    found: Counter[str]
    runs: int
    story: str

    def __str__(self) -> str:
        seen = ", ".join(f"{name} ({count})" for name, count in self.found.most_common()) or "nothing"
        return f"{self.runs} runs showed {seen}\n{self.story}"


@dataclass(frozen=True, slots=True)
class Mutant:
    """One deliberate mistake, and what must notice it: a simulation invariant, kit scenarios, or both.

    Attributes:
        what: The mistake, in words.
        killed_by: The broken promise of the simulation that kills it; empty if only the kit can. Other
            promises may notice it too, but do not count.
        setup: Where it shows: a key of :data:`~support.simulation.SETUPS`.
        faults: What it takes to show.
        patch: Makes the mistake while the context lasts.
        store: Makes a model store with the mistake in it; None for the setup's own.
        wrap: The mistake as a layer around any backend, for those that can be made through the interface.
        scenarios: Scenarios of the conformance kit that must fail on it too.
        on: The real store on which they must fail.
    """

    name: str
    what: str
    killed_by: str = ""
    setup: str = "mutex-atomic"
    faults: Faults = field(default_factory=Faults)
    patch: Callable[[], AbstractContextManager[None]] = nullcontext
    store: Callable[..., ModelStore] | None = None
    wrap: Wrap | None = None
    scenarios: tuple[str, ...] = ()
    on: str = "sqlite"

    def unbroken(self) -> Setup:
        """Where it shows, without the mistake."""
        return replace(SETUPS[self.setup], faults=self.faults)

    def attempt(self, most: int = 4000) -> Trial:
        """Run schedule after schedule until the expected promise is broken, or there have been ``most``."""
        setup = self.unbroken()
        if self.wrap is not None:
            setup = replace(setup, store=through_the_interface(self.wrap))
        elif self.store is not None:
            setup = replace(setup, store=self.store)
        found: Counter[str] = Counter()
        story, runs = "", 0
        with self.patch():
            for schedule in schedules(most):
                runs += 1
                world = World(setup, patience=4)
                world.run(schedule)
                if world.violations:
                    found.update({each.name for each in world.violations})
                    story = story or incident(world, schedule)
                if self.killed_by in found:
                    return Trial(found, runs, incident(world, schedule, self.killed_by))
        return Trial(found, runs, story)
