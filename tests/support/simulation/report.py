"""The report of a failed run: which promise was broken, what led there, and how to see it again."""

from __future__ import annotations

import random
from collections.abc import Iterator

from support.simulation.setups import explore
from support.simulation.world import Setup, World

__all__ = ["incident", "schedules", "shrunk"]


def incident(world: World, schedule: bytes, name: str | None = None) -> str:
    """The story of a run up to its first broken promise (of that ``name``), one line a step."""
    first = next(each for each in world.violations if name in (None, each.name))
    setup = world.setup
    return "\n".join([
        f"{first.name}: {first.what}",
        (
            f"setup {setup.label or 'unnamed'} on the {world.store.name} store, "
            f"schedule {schedule.hex() or 'empty'}:"
        ),
        *world.story[: first.line],
    ])  # fmt: skip


def schedules(count: int) -> Iterator[bytes]:
    """Schedules by number: the same ones on every machine."""
    for seed in range(count):
        source = random.Random(seed)
        yield source.randbytes(source.randrange(20, 200))


def shrunk(setup: Setup, schedule: bytes, name: str) -> bytes:
    """A shorter, plainer schedule that still breaks the promise ``name``."""

    def breaks(candidate: bytes) -> bool:
        return any(each.name == name for each in explore(setup, candidate).violations)

    size = max(1, len(schedule) // 2)
    while size:
        at = 0
        while at < len(schedule):
            shorter = schedule[:at] + schedule[at + size :]
            if breaks(shorter):
                schedule = shorter
            else:
                at += size
        size //= 2
    for at in range(len(schedule)):
        plainer = schedule[:at] + b"\0" + schedule[at + 1 :]
        if breaks(plainer):
            schedule = plainer
    return schedule
