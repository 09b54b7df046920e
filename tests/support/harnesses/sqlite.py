"""The embedded store under test: a file of its own, read over a connection that is not the backend's."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import cast
from urllib.parse import quote

from lockkit.facts import ClaimState
from lockkit.testing.clocks import ShiftedClock
from lockkit.testing.harness import Harness, StoredClaim
from lockkit.values.names import claim_id
from support.harnesses.exclusions import EXCLUSIONS

__all__ = ["SharedSqliteHarness", "SqliteHarness"]

_STATES: tuple[ClaimState, ...] = ("WAITING", "HELD", "LINGERING")
_FAR = 1 << 60


class SqliteHarness(Harness):
    """One database file. A crashed client keeps its pulse in this process: then the ttl rules.

    What a real death does is shown by ``tests/crash`` with processes.
    """

    name = "sqlite"
    exclusions = EXCLUSIONS["sqlite"]
    virtual = True
    ttl = 30.0
    short_ttl = 0.4
    examples = (100, 40)

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self.clock = self._shifted = ShiftedClock()
        self.path = scratch / "store" / "kit.db"

    @property
    def url(self) -> str:
        return f"sqlite:{quote(str(self.path))}"

    def advance(self, seconds: float) -> None:
        self._shifted.advance(seconds)

    def freeze(self) -> None:
        self._shifted.freeze()

    def stored(self, name: str) -> list[StoredClaim]:
        if not self.path.exists():
            return []
        with closing(sqlite3.connect(self.path, timeout=5.0, isolation_level=None)) as connection:
            rows = connection.execute(
                "SELECT token, fence, state, weight, capacity, deadline, evicted FROM claims "
                "WHERE namespace = 'default' AND name = ? ORDER BY fence",
                (name,),
            ).fetchall()
        return [
            StoredClaim(
                claim_id(token),
                fence,
                cast("ClaimState", _STATES[state]),
                weight,
                capacity,
                None if deadline >= _FAR else deadline / 1e6,
                bool(evicted),
            )
            for token, fence, state, weight, capacity, deadline, evicted in rows
        ]

    def residue(self) -> dict[str, int]:
        """Rows of every kind but the two that the store keeps for itself, and FIFOs."""
        if not self.path.exists():
            return {}
        with closing(sqlite3.connect(self.path, timeout=5.0, isolation_level=None)) as connection:
            return {
                table: int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608
                for table in ("claims", "high", "meta")
            }


class SharedSqliteHarness(SqliteHarness):
    """The same in a folder that a group shares, so that its scope is ``host``."""

    name = "sqlite-shared"
    examples = (60, 20)

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self.path.parent.mkdir()
        self.path.parent.chmod(0o2770)
