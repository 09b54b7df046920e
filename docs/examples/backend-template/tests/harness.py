"""The harness: a fresh store for each scenario of the kit, which it reads without the backend."""

from __future__ import annotations

import json
from pathlib import Path

from lockkit.names import claim_id, digest
from lockkit.testing.clocks import ShiftedClock
from lockkit.testing.harness import Harness, StoredClaim

__all__ = ["TemplateHarness"]


class TemplateHarness(Harness):
    """A folder for each store. The store uses the clock of the clients, which a test can move, so no scenario has to wait for a ttl."""

    name = "template"
    virtual = True  # TODO: use False and a ttl of some 3 s if the clock of your server cannot be moved
    ttl = 30.0
    short_ttl = 0.4
    examples = (40, 30)

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self.clock = self._shifted = ShiftedClock()

    @property
    def url(self) -> str:
        return f"template:{self.scratch}/store"

    def advance(self, seconds: float) -> None:
        self._shifted.advance(seconds)

    def freeze(self) -> None:
        self._shifted.freeze()

    def stored(self, name: str) -> list[StoredClaim]:
        """Read the queue. TODO: use a connection of your own, not the backend's, and your store's own language."""
        path = self.scratch / "store" / "default" / digest(name)
        rows = json.loads(path.read_text())["rows"] if path.exists() else []
        return [
            StoredClaim(
                claim_id(row["token"]), row["fence"], row["state"], row["weight"], row["capacity"], row["deadline"],
                row["evicted"],
            )
            for row in rows
        ]  # fmt: skip
