"""The connection on which a client receives its wakes. One thread at a time reads it.

A thread that waits for its own turn reads itself: a wake by another reading thread would take twice as long.
"""

from __future__ import annotations

import math
import select
import socket
import time
from typing import Any

from lockkit_redis.connection import pack
from lockkit_redis.store import RedisStore

__all__ = ["Gone", "Subscription"]

_PATIENCE = 2.0
_PING = 10.0
"""Seconds of silence after which a PING finds out whether the connection lives."""
_PINGED = pack("PING")


class Gone(Exception):
    """Raised when a subscription is useless, though its connection may live."""


class Subscription:
    """A connection of its own, subscribed to the channel of a client.

    Raises:
        Refused, OSError, redis.exceptions.RedisError: There is none to be had.
    """

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self._server, self._connection = store.connect(_PATIENCE)
        self._asleep, self._nudges = socket.socketpair()
        self._asleep.setblocking(False)
        self._nudges.setblocking(False)
        self._heard_at = time.monotonic()
        self._pinged = False
        self._nudged = self._asleep.fileno()
        poll = select.poll()
        poll.register(self._connection.fileno(), select.POLLIN)
        poll.register(self._nudged, select.POLLIN)
        self._poll = poll.poll
        self._connection.send(pack("SUBSCRIBE", store.channel), time.monotonic() + _PATIENCE)

    def __del__(self) -> None:
        if hasattr(self, "_nudges"):
            self._asleep.close()
            self._nudges.close()

    def hear(self, seconds: float) -> list[Any]:
        """Wait so long for messages or :meth:`nudge`; return the messages. For one thread at a time.

        Raises:
            Gone, OSError, redis.exceptions.RedisError: The subscription is useless, as after a call cut off.
        """
        silent_for = time.monotonic() - self._heard_at
        if silent_for >= _PING and not self._poll(0):  # an answer may have come while no thread was reading
            self._ask_for_life()
            silent_for = 0.0
        left = min(seconds, _PING - silent_for)
        said: list[Any] = []
        for ready, _ in self._poll(math.ceil(left * 1000.0) if left > 0.0 else 0):
            if ready == self._nudged:
                self._asleep.recv(4096)
            else:
                said = self._connection.said()
                self._pinged = False
                self._heard_at = time.monotonic()
        return said

    def _ask_for_life(self) -> None:
        if self._pinged:  # the last PING has no answer either: the connection is half open
            raise TimeoutError("timed out")
        if self._server not in self._store.servers():
            raise Gone("its node does not belong to the Cluster any more: nothing is published there")
        self._pinged = True
        self._heard_at = time.monotonic()
        self._connection.send(_PINGED, self._heard_at + _PATIENCE)

    def nudge(self) -> None:
        """End the present or next :meth:`hear`. Never blocks or fails, in any thread or signal handler."""
        try:
            self._nudges.send(b"\0")
        except OSError:  # full of nudges, or closed
            pass

    def interrupt(self) -> None:
        """End the subscription; the thread that waits notices."""
        self._connection.interrupt()

    def close(self) -> None:
        """Close the subscription, when no thread reads it any more."""
        self._connection.reset()
        self._asleep.close()
        self._nudges.close()
