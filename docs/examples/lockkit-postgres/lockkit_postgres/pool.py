"""The connections of one store. Each call borrows an idle one, or makes a new one."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from lockkit.lib.clock import Clock
from lockkit.store.connections import ConnectionPool
from lockkit.store.inherited import inherited
from lockkit.store.spi import Refused
from lockkit_postgres.address import Address
from lockkit_postgres.connection import Connection

__all__ = ["Connections"]


class Connections:
    """The connections to one database, one for each call under way. A forked child cannot use them."""

    def __init__(self, address: Address, clock: Clock) -> None:
        self.address = address
        self._clock = clock
        self._pool = ConnectionPool(
            self._new, address.shown, idle=0.0
        )  # to look at a connection takes no time
        # The host that answered last: a silent one is not tried again for each connection.
        self._first = 0

    def call(self, budget: float, function: str, *words: object, fresh: bool = False) -> tuple[Any, float]:
        """Call a function of the schema. Return its answer and when it was sent. See :meth:`ask`."""
        marks = ", ".join(f"${at}" for at in range(1, len(words) + 1))
        # The schema is a checked identifier, the function one of ours.
        return self.ask(budget, f'SELECT "{self.address.schema}".{function}({marks})', words, fresh=fresh)

    def ask(
        self, budget: float, statement: str, words: Sequence[object] = (), *, fresh: bool = False
    ) -> tuple[Any, float]:
        """Run a statement. Return the JSON value that it gives, and when it was sent.

        Args:
            budget: Seconds, for a new connection too if one is needed.
            statement: One statement, which is one transaction.
            words: The values of its ``$1``, ``$2``.
            fresh: Use a new connection, which is closed afterwards.

        Raises:
            Refused, Unknown: See :mod:`lockkit_postgres.failures`.
        """
        end = time.monotonic() + budget
        connection = self.take(end, fresh=fresh)
        sent = self._clock.now()
        try:
            answer = connection.ask(statement, words, end)
        except BaseException as error:
            self._put_back(connection, usable=isinstance(error, Refused) and not fresh)
            raise
        self._put_back(connection, usable=not fresh)
        return None if answer is None else json.loads(answer), sent

    def take(self, end: float, *, fresh: bool = False) -> Connection:
        """Take a connection that no other call uses.

        Raises:
            Refused: None can be made, or this is a forked child and the pool is its parent's.
        """
        budget = max(end - time.monotonic(), 0.0)
        return self._new(budget) if fresh else self._pool.take(budget)

    def _new(self, budget: float) -> Connection:
        if not self._pool.origin.is_here():
            raise inherited(self.address.shown)
        connection = Connection(self.address, time.monotonic() + budget, self._first)
        self._first = connection.host
        return connection

    def _put_back(self, connection: Connection, *, usable: bool) -> None:
        if usable and connection.quiet():
            self._pool.keep(connection)
        else:
            connection.reset()

    def close(self) -> None:
        """Close the idle connections now, and the others when their call ends."""
        self._pool.close()
