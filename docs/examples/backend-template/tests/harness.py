"""A fresh store for each scenario of the kit, and a look into it behind the backend's back."""

from __future__ import annotations

import json
from pathlib import Path

from lockkit.names import claim_id, digest
from lockkit.testing.clocks import ShiftedClock
from lockkit.testing.harness import Harness, StoredClaim

__all__ = ["TemplateHarness"]


class TemplateHarness(Harness):
    """A folder of its own. Its time is the clients', so a test can move it: no scenario waits for a ttl."""

    name = "template"
    virtual = True  # TODO: False, if your server's clock cannot be moved; and then a ttl of some 3 s
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
        """TODO: read it with another connection than the backend's, in your store's own language."""
        path = self.scratch / "store" / "default" / digest(name)
        rows = json.loads(path.read_text())["rows"] if path.exists() else []
        return [
            StoredClaim(
                claim_id(row["token"]), row["fence"], row["state"], row["weight"], row["capacity"], row["deadline"],
                row["evicted"],
            )
            for row in rows
        ]  # fmt: skip
