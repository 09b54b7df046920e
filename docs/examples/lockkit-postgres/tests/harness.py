"""The store under test: a real server for all harnesses of a run, a schema of its own for each."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import cast

from psycopg.pq import ConnStatus, ExecStatus, PGconn

from lockkit.facts import ClaimState
from lockkit.lib.clock import SYSTEM
from lockkit.testing.clocks import ShiftedClock
from lockkit.testing.harness import Harness, StoredClaim
from lockkit.testing.server_clock import ServerClock
from server import PostgresServer

__all__ = ["PostgresHarness"]

_TABLES = ("claim", "gone", "queue", "kept_record")  # of claims that go a tombstone may stay
_MOMENT = 5e-6
"""Seconds by which the server's clock and ours may differ when both are stopped. A claim whose deadline is
now has lapsed for the server, and must have for readers, or a run of the state machine does not replay."""

_idle: list[str] = []
"""Schemas that no harness has now: making one takes longer than most scenarios."""
_made: list[str] = []


@functools.cache
def _server() -> PostgresServer:
    return PostgresServer(
        clock=PostgresHarness.virtual, auth="trust", autovacuum="off", log_min_messages="fatal"
    )


class PostgresHarness(Harness):
    """A schema of a real server, which runs on a clock that the test moves where there is a C compiler."""

    name = "postgres"
    virtual = ServerClock.possible()
    ttl = 30.0 if virtual else 3.0
    short_ttl = 0.8
    examples = (40, 30) if virtual else (12, 15)

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self._server = _server()
        self._shifted = ShiftedClock()
        if self._server.clock is not None:
            self._server.clock.reset()
            self.clock = self._shifted
        # The server counts from the epoch, the clients from boot. Measured once, so that stored times
        # read the same every time.
        self._epoch = SYSTEM.wall() - SYSTEM.now()
        self._look = PGconn.connect(self._server.conninfo())
        assert self._look.status == ConnStatus.OK, self._look.error_message
        self._schema = _idle.pop() if _idle else f"kit_{len(_made)}"
        if self._schema not in _made:
            self.open().close()  # which makes it
            _made.append(self._schema)

    @property
    def url(self) -> str:
        return self._server.url(schema=self._schema)

    def advance(self, seconds: float) -> None:
        if self._server.clock is None:
            super().advance(seconds)
            return
        # The clients first: for the moment in between they trust their claims too little, not too much.
        self._shifted.advance(seconds)
        self._server.clock.step(seconds)

    def freeze(self) -> None:
        if self._server.clock is not None:
            self._shifted.freeze()
            self._server.clock.stand(self._epoch + self._shifted.now())

    def stored(self, name: str) -> list[StoredClaim]:
        rows = self._rows(
            f"SELECT claim_id, fence, state, weight, capacity, extract(epoch FROM deadline), evicted "
            f"FROM {self._schema}.claim "
            "WHERE namespace = 'default' AND name = $1 ORDER BY fence",
            name,
        )
        return [
            StoredClaim(
                claim_id, int(fence), cast("ClaimState", state), int(weight), int(capacity),
                float(deadline) - self._epoch - _MOMENT, evicted == "t",
            )
            for claim_id, fence, state, weight, capacity, deadline, evicted in rows
        ]  # fmt: skip

    def residue(self) -> dict[str, int]:
        """Rows of every table but two: a name keeps its fence for good, and tombstones go in time."""
        tables = ("claim", "kept_record")
        return {
            table: int(self._rows(f"SELECT count(*) FROM {self._schema}.{table}")[0][0]) for table in tables
        }

    def close(self) -> None:
        for table in _TABLES:
            self._rows(f"DELETE FROM {self._schema}.{table}")
        self._look.finish()
        _idle.append(self._schema)

    def _rows(self, statement: str, *words: str) -> list[list[str]]:
        result = self._look.exec_params(statement.encode(), [word.encode() for word in words] or None)
        assert result.status in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK), result.error_message
        columns = range(result.nfields)
        return [
            [(result.get_value(row, each) or b"").decode() for each in columns]
            for row in range(result.ntuples)
        ]
