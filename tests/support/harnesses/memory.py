"""The memory store under test, on a clock that the test moves."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

from lockkit.testing.clocks import ShiftedClock
from lockkit.testing.harness import Harness, StoredClaim
from lockkit.values.names import claim_id
from support.harnesses.exclusions import EXCLUSIONS

__all__ = ["MemoryHarness"]

_labels = itertools.count()


class MemoryHarness(Harness):
    """One memory store of this process, read through the object that holds its rows."""

    name = "memory"
    exclusions = EXCLUSIONS["memory"]
    virtual = True
    ttl = 30.0
    short_ttl = 0.3
    examples = (100, 40)

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self.clock = self._shifted = ShiftedClock()
        self._label = f"kit-{os.getpid()}-{next(_labels)}"
        # The store outlives the backends that open it; this one only shows where it is.
        self._store: Any = vars(self.open())["_store"]

    @property
    def url(self) -> str:
        return f"memory://{self._label}"

    def advance(self, seconds: float) -> None:
        self._shifted.advance(seconds)

    def freeze(self) -> None:
        self._shifted.freeze()

    def stored(self, name: str) -> list[StoredClaim]:
        with self._store.mutex:
            queue = self._store.queues.get(name)
            return [
                StoredClaim(
                    claim_id(row.token),
                    row.fence,
                    row.state,
                    row.weight,
                    row.capacity,
                    None if row.deadline == float("inf") else row.deadline,
                    row.evicted,
                )
                for row in (queue.rows.values() if queue else ())
            ]
