"""One connection that listens for all waiters of a client: the server sends the claim ids to wake.

A wake is only advice. To make up for a missed one, the listening thread looks at the claims *after* it has
subscribed: at one when its waiter comes, and at all of them when the connection is new.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable

from lockkit.lib.origin import this_origin
from lockkit.store.spi import Refused, Unknown
from lockkit.store.waking import wake_up
from lockkit_postgres.connection import Connection
from lockkit_postgres.pool import Connections

__all__ = ["Wakes"]

_log = logging.getLogger("lockkit.postgres")
_PATIENCE = 2.0
_SILENCE = 10.0
"""Seconds of silence after which the connection is tested."""


class _Watch:
    """One waiter."""

    __slots__ = ("_wakes", "claim_id", "wake")

    def __init__(self, wakes: Wakes, claim_id: str, wake: Callable[[], None]) -> None:
        self._wakes = wakes
        self.claim_id = claim_id
        self.wake = wake

    def close(self) -> None:
        """Stop."""
        self._wakes.forget(self)


class Wakes:
    """The listening thread, started with the first waiter."""

    def __init__(self, pool: Connections, namespace: str, channel: str) -> None:
        self._pool = pool
        self._namespace = namespace
        self._channel = channel
        self._origin = this_origin()
        self._mutex = threading.RLock()
        self._watches: dict[str, list[_Watch]] = {}
        self._new: list[_Watch] = []
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()
        self._bell, self._button = os.pipe()
        os.set_blocking(self._bell, False)
        os.set_blocking(self._button, False)

    def watch(self, claim_id: str, wake: Callable[[], None]) -> _Watch:
        """Call ``wake`` when this claim should ask again, also if the server's message was missed."""
        watch = _Watch(self, claim_id, wake)
        with self._mutex:
            self._watches.setdefault(claim_id, []).append(watch)
            self._new.append(watch)
            if not self._closed.is_set():
                self._begin()
                self._ring()
        return watch

    def forget(self, watch: _Watch) -> None:
        """End a watch."""
        with self._mutex:
            left = [each for each in self._watches.pop(watch.claim_id, []) if each is not watch]
            if left:
                self._watches[watch.claim_id] = left

    def close(self) -> None:
        """End the thread, without waiting for it. In a forked child there is none."""
        if not self._origin.is_here():
            return
        with self._mutex:
            if not self._closed.is_set():
                self._closed.set()
                self._ring()
                if self._thread is None:
                    self._hang_up()

    def _begin(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="lockkit-postgres-wakes", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # there can be no more threads; then waiters ask every poll cap
                return
            self._thread = thread

    def _ring(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full: it rings already
            os.write(self._button, b"!")

    def _hang_up(self) -> None:
        with self._mutex:
            os.close(self._bell)
            os.close(self._button)

    def _run(self) -> None:
        pause = 0.05
        while not self._closed.is_set():
            try:
                self._listen()
                pause = 0.05
            except (Refused, Unknown) as error:
                _log.debug("the listening connection ended: %s", error)
            except Exception:
                _log.exception("the listening connection ended")
            self._closed.wait(pause)  # meanwhile waiters ask every poll cap
            pause = min(2 * pause, 1.0)
        self._hang_up()

    def _listen(self) -> None:
        connection = self._pool.take(time.monotonic() + _PATIENCE)
        try:
            connection.ask(f'LISTEN "{self._channel}"', (), time.monotonic() + _PATIENCE)
            with self._mutex:
                self._new = [watch for watches in self._watches.values() for watch in watches]
            while not self._closed.is_set():
                self._look(connection)
                for claim_id in connection.notified():
                    with self._mutex:
                        told = list(self._watches.get(claim_id, ()))
                    self._wake(told)
                if not connection.listen(self._bell, time.monotonic() + _SILENCE):
                    connection.ask("SELECT 1", (), time.monotonic() + _PATIENCE)
        finally:
            connection.reset()

    def _look(self, connection: Connection) -> None:
        """Wake the new waiters whose claims are not waiting any more."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._bell, 4096)
        with self._mutex:
            new, self._new = self._new, []
        if not new:
            return
        ids = "{" + ",".join({watch.claim_id for watch in new}) + "}"
        statement = f'SELECT "{self._pool.address.schema}".waiting($1, $2)'
        waiting = set(
            json.loads(
                connection.ask(statement, (self._namespace, ids), time.monotonic() + _PATIENCE) or "[]"
            )
        )
        self._wake([watch for watch in new if watch.claim_id not in waiting])

    def _wake(self, watches: list[_Watch]) -> None:
        for watch in watches:
            wake_up(watch.wake, _log)
