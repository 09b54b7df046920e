"""A limit on the calls of a client that are under way at once, so that the server answers them in time.

A call may be sent when it has a *turn*; the others wait in this process. Without a limit a thousand threads
would each send a request, and a server that takes a millisecond for each would answer the last one after a
second. By then some callers have sent their request again, while the server still works on the first copies,
and in the end it answers none in time.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from lockkit.errors import BackendUnavailable
from lockkit.lib.bell import Bell
from lockkit.store.exchanges import Await, Exchange
from lockkit.store.spi import Refused

__all__ = ["Turns"]

T = TypeVar("T")
_LEAST, _FIRST, _MOST = 8.0, 16.0, 64.0
"""Calls under way: at least, at first, and at most."""
_QUICK, _SLOW = 0.5, 1.0
"""Seconds: a quicker call raises the limit a little, a slower one lowers it. A call is several requests: one
of 0.8 s is that of a server that is far away, not of one that cannot keep up."""
_LESS = 0.7
_SHARE = 0.5
"""The part of a call's budget in which its turn must come; the rest is for the call itself."""
_OUTAGE = 30.0
"""Seconds without an answer after which the server counts as out of reach, and not as busy."""


class _Place:
    """A call that waits for its turn.

    Attributes:
        token: The token of its claim.
        end: When its budget is over, on ``time.monotonic()``.
        bell: Rung when its turn has come.
    """

    __slots__ = ("bell", "end", "token")

    def __init__(self, token: str, end: float) -> None:
        self.token = token
        self.end = end
        self.bell = Bell()


class Turns:
    """The turns of one client's calls. Thread-safe.

    A turn also ends after the longest time that its call may take, so an interrupted call loses none.

    Args:
        where: The server, for errors.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._limit = _FIRST
        self._until: dict[str, float] = {}
        """When each turn is over at the latest, by the token of its claim, on ``time.monotonic()``."""
        self._waiting: dict[bool, deque[_Place]] = {False: deque(), True: deque()}
        """The calls that wait for a turn, by ``late``; each list in order."""
        self._answered = time.monotonic()

    def take(
        self, token: str, ask: Callable[[float], Exchange[T]], budget: float, *, late: bool
    ) -> Exchange[T]:
        """Wait for a turn, and perform an exchange in the time that is left.

        Args:
            token: The claim's token.
            ask: Makes the exchange; its argument is the budget of the exchange in seconds.
            budget: Seconds for both, the wait and the exchange.
            late: Whether calls that already wait go first.

        Raises:
            Refused: There was no turn in time.
            Exception: Whatever the exchange raises.
        """
        began = time.monotonic()
        end = began + budget
        if self._full(began) or (late and any(self._waiting.values())):
            yield from self._wait(_Place(token, end), began + budget * _SHARE, late=late)
            began = time.monotonic()
        self._until[token] = end
        answered = False
        try:
            answer = yield from ask(end - began)
            answered = True
        except Refused:
            answered = True
            raise
        finally:
            now = time.monotonic()
            if answered:
                self._answered = now
                self._until.pop(token, None)
            else:  # the server may still work on it, so the turn lasts for as long again
                self._until[token] = now + (now - began)
            if now - began > _SLOW or not answered:
                self._limit = max(_LEAST, self._limit * _LESS)
            elif now - began < _QUICK:
                self._limit = min(_MOST, self._limit + 1.0 / self._limit)
            self._pass_on(now)
        return answer

    def _full(self, now: float) -> bool:
        if len(self._until) < self._limit:
            return False
        for token, until in list(self._until.items()):
            if until <= now:
                self._until.pop(token, None)
        return len(self._until) >= self._limit

    def _pass_on(self, now: float) -> None:
        """Give the free turns to the calls that have waited longest."""
        while any(self._waiting.values()) and not self._full(now):
            waiting = self._waiting[False] or self._waiting[True]
            try:
                place = waiting.popleft()
            except IndexError:  # another thread was faster
                continue
            self._until[place.token] = place.end
            place.bell.ring()

    def _wait(self, place: _Place, end: float, *, late: bool) -> Exchange[None]:
        """Wait for a turn; raise Refused if there was none in time."""
        waiting = self._waiting[late]
        waiting.append(place)
        had = False
        try:
            self._pass_on(time.monotonic())  # a turn may have ended just before
            had = yield Await(place.bell, end - time.monotonic())
            if not had:
                try:
                    waiting.remove(place)
                except ValueError:  # its turn comes just now
                    had = True
            now = time.monotonic()
            # A turn that nobody ended is over with its budget, and no bell rings for that.
            if had or not self._full(now):
                had = True
                return
            count = 1 + sum(map(len, self._waiting.values()))
            text = f"{self._where}: {count} acquires of this client wait until earlier ones are answered"
            hint = "fewer threads, or a faster server; see lockkit doctor"
            raise Refused(BackendUnavailable(text, hint=hint), busy=now < self._answered + _OUTAGE)
        finally:
            if not had:
                with contextlib.suppress(ValueError):
                    waiting.remove(place)
                self._until.pop(place.token, None)
                self._pass_on(time.monotonic())
