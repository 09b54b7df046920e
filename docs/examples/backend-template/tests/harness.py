"""The harness: a fresh store for each scenario of the kit, which it reads without the backend."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from lockkit.testing.clocks import ShiftedClock
from lockkit.testing.harness import Harness, StoredClaim
from lockkit.values.names import claim_id

__all__ = ["TemplateHarness"]


class TemplateHarness(Harness):
    """A file for each store. The store uses the clients' clock; a test moves it, and awaits no ttl."""

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
        return f"template:{self.scratch}/locks.db"

    def advance(self, seconds: float) -> None:
        self._shifted.advance(seconds)

    def freeze(self) -> None:
        self._shifted.freeze()

    def stored(self, name: str) -> list[StoredClaim]:
        """Read the queue. TODO: use a connection of your own, not the backend's."""
        with closing(sqlite3.connect(self.scratch / "locks.db", timeout=5.0)) as connection:
            found = connection.execute(
                "SELECT document FROM queues WHERE namespace = 'default' AND name = ?", (name,)
            ).fetchall()
        rows = json.loads(found[0][0])["rows"] if found else []
        return [
            StoredClaim(
                claim_id(row["token"]), row["fence"], row["state"], row["weight"], row["capacity"],
                row["deadline"], row["evicted"],
            )
            for row in rows
        ]  # fmt: skip
