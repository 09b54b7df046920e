"""One subscriber for all waiters of a client: its channel says the fence of the claim whose turn it may be.

A wake is only advice. Whatever may have been missed (before the subscription stood, while the connection was down) is
made up for by a look at every waiter's claim once it stands; a message that comes before its waiter is registered is kept
for it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import redis.exceptions as theirs

from lockkit.spi import Refused, Unknown
from lockkit_redis.failures import replied
from lockkit_redis.line import Line, pack
from lockkit_redis.router import Link, Router

__all__ = ["Wakes"]

_log = logging.getLogger("lockkit.redis")
_PATIENCE = 2.0
_PING = 10.0
"""Seconds of silence after which the connection is asked whether it lives."""
_KEPT = 1024
_DOUBT = 3.0
"""Seconds after the subscription stands in which a waiter may come that was queued before it stood."""
_GLANCE = 0.25
"""Seconds that a look at a single waiter may take; if it takes longer the waiter asks for itself."""


class _Watch:
    """One waiter."""

    __slots__ = ("_fence", "_wakes", "token", "wake", "where")

    def __init__(self, wakes: Wakes, fence: bytes, where: str, token: str, wake: Callable[[], None]) -> None:
        self._wakes = wakes
        self._fence = fence
        self.where = where
        self.token = token
        self.wake = wake

    def close(self) -> None:
        """Stop."""
        self._wakes.forget(self._fence, self)


class Wakes:
    """The subscriber thread, started with the first waiter."""

    def __init__(self, router: Router, channel: str) -> None:
        self._router = router
        self._channel = channel
        self._mutex = threading.RLock()
        self._watches: dict[bytes, list[_Watch]] = {}
        self._early: dict[bytes, None] = {}
        self._standing = False
        self._stood_at = 0.0
        self._closed = False
        self._warned = False
        self._thread: threading.Thread | None = None
        self._line: Line | None = None

    def watch(self, fence: str, where: str, token: str, wake: Callable[[], None]) -> _Watch:
        """Call ``wake`` when a claim is told to ask, or when that was missed.

        Args:
            fence: Its fence, by which it is called.
            where: The key of the claims of its name.
            token: Its token.
            wake: Called from any thread.
        """
        key = fence.encode()
        watch = _Watch(self, key, where, token, wake)
        with self._mutex:
            self._watches.setdefault(key, []).append(watch)  # two nodes may give one fence
            missed = self._early.pop(key, self) is None
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="lockkit-redis-wakes", daemon=True)
                self._thread.start()
            doubtful = self._standing and time.monotonic() - self._stood_at < _DOUBT
        if missed:
            wake()
        elif doubtful:
            self._make_up([watch], _GLANCE)
        return watch

    def forget(self, fence: bytes, watch: _Watch) -> None:
        """Its waiter has gone."""
        with self._mutex:
            watches = self._watches.get(fence, [])
            if watch in watches:
                watches.remove(watch)
            if not watches:
                self._watches.pop(fence, None)

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        line = self._line
        if line is not None:
            line.interrupt()  # the thread closes it

    def _run(self) -> None:
        pause = 0.05
        while not self._closed:
            try:
                self._listen()
                pause = 0.05
            except (Refused, theirs.RedisError, OSError, AttributeError) as error:
                self._say(error)
            except Exception:  # whatever it is, others wait for their wakes
                _log.exception("the subscription to %s ended", self._router.where)
            line, self._line = self._line, None
            self._standing = False
            if line is not None:
                line.reset()
            if not self._closed:
                time.sleep(pause)  # the poll cap covers it
                pause = min(2 * pause, 1.0)

    def _say(self, error: Exception) -> None:
        if isinstance(error, theirs.NoPermissionError) and not self._warned:
            self._warned = True
            told = replied(error, self._router)
            _log.warning("%s; until then those who wait ask every two seconds", told)
        elif not self._closed:
            _log.debug("the subscription to %s ended: %s", self._router.where, error)

    def _listen(self) -> None:
        line = self._line = self._router.connect(_PATIENCE)
        if self._closed:  # whoever closed us may have looked before there was a connection
            return
        line.send(pack("SUBSCRIBE", self._channel), time.monotonic() + _PATIENCE)
        silent = 0
        while not self._closed:
            try:
                message = line.hear(time.monotonic() + _PING)
            except TimeoutError:
                silent += 1
                if silent > 1:  # it did not even answer the last PING: a link that is half open
                    raise
                if not self._router.serves(line):
                    return  # its node is not of the Cluster any more: nothing is published there
                line.send(pack("PING"), time.monotonic() + _PATIENCE)
                continue
            silent = 0
            if isinstance(message, theirs.RedisError):
                raise message
            if isinstance(message, list):
                self._heard(message)

    def _make_up(self, watches: list[_Watch], patience: float = _PATIENCE) -> None:
        """Wake those who do not simply wait any more."""
        if not watches:
            return
        together: dict[Link, list[_Watch]] = {}
        for watch in watches:
            try:
                together.setdefault(self._router.at(watch.where), []).append(watch)
            except Refused:
                watch.wake()
        for link, some in together.items():
            packed = b"".join(pack("HGET", watch.where, watch.token) for watch in some)
            try:
                states = link.row(packed, patience, len(some))
            except (Refused, Unknown):
                states = [None] * len(some)
            for watch, state in zip(some, states, strict=True):
                if not isinstance(state, bytes) or b'"WAITING"' not in state:
                    watch.wake()

    def _heard(self, message: list[Any]) -> None:
        kind = message[0]
        if kind == b"message":
            fence = message[2]
            with self._mutex:
                found = self._watches.get(fence)
                if not found:
                    self._early[fence] = None
                    while len(self._early) > _KEPT:
                        del self._early[next(iter(self._early))]
                    return
                found = [*found]
            for watch in found:
                watch.wake()
        elif kind == b"subscribe":
            with self._mutex:
                everybody = [watch for watches in self._watches.values() for watch in watches]
                self._standing, self._stood_at = True, time.monotonic()
            self._make_up(everybody)
