"""The connections of one store: each call takes one that is idle, or makes one."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from typing import Any

from lockkit.clock import Clock
from lockkit.store.connections import Pool, inherited
from lockkit.store.spi import Refused
from lockkit_postgres.address import Address
from lockkit_postgres.line import Line

__all__ = ["Lines"]


class Lines:
    """As many connections as calls run at the same time; they stay open. Belongs to the process that made it."""

    def __init__(self, address: Address, clock: Clock) -> None:
        self.address = address
        self._clock = clock
        self._pool = Pool(self._new, address.shown, idle=0.0)  # to look takes no time
        self._first = (
            0  # the host that was good last: one that is silent is not asked again for each connection
        )

    def call(self, budget: float, function: str, *words: object, fresh: bool = False) -> tuple[Any, float]:
        """Call a function of the schema; its answer, and when (on the clock) the request was sent. See :meth:`ask`."""
        marks = ", ".join(f"${at}" for at in range(1, len(words) + 1))
        # The schema is a checked identifier, the function one of ours.
        return self.ask(budget, f'SELECT "{self.address.schema}".{function}({marks})', words, fresh=fresh)

    def ask(
        self, budget: float, statement: str, words: Sequence[object] = (), *, fresh: bool = False
    ) -> tuple[Any, float]:
        """The JSON that a statement gives, and when it was sent.

        Args:
            budget: Seconds, for a new connection too if one is needed.
            statement: One, which is one transaction.
            words: For its ``$1``, ``$2``.
            fresh: Over a connection of its own, which is closed afterwards.

        Raises:
            Refused, Unknown: See :mod:`lockkit_postgres.failures`.
        """
        end = time.monotonic() + budget
        line = self.take(end, fresh=fresh)
        sent = self._clock.now()
        try:
            answer = line.ask(statement, words, end)
        except BaseException as error:
            self._put_back(line, usable=isinstance(error, Refused) and not fresh)
            raise
        self._put_back(line, usable=not fresh)
        return None if answer is None else json.loads(answer), sent

    def take(self, end: float, *, fresh: bool = False) -> Line:
        """A connection that nobody else uses.

        Raises:
            Refused: There is none, or this is a forked child and they are its parent's.
        """
        budget = max(end - time.monotonic(), 0.0)
        return self._new(budget) if fresh else self._pool.take(budget)

    def _new(self, budget: float) -> Line:
        if self._pool.pid != os.getpid():
            raise inherited(self.address.shown)
        line = Line(self.address, time.monotonic() + budget, self._first)
        self._first = line.host
        return line

    def _put_back(self, line: Line, *, usable: bool) -> None:
        if usable and line.quiet():
            self._pool.keep(line)
        else:
            line.reset()

    def close(self) -> None:
        """Close those that are idle, and the others when their call is over."""
        self._pool.close()
