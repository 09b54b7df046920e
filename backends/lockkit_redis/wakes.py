"""One subscription for all waiters of a client. A message is the fence of the claim whose turn it may be.

A wake is only advice. Messages may be missed before the subscription starts, or while the connection is down;
once it is up, the claims of all waiters are looked at. A message for a waiter not yet registered is kept.

A thread that waits alone reads the subscription. Otherwise a thread of its own does, the keeper, which also
makes the connection. A waiter for which the keeper reads is parked, to its end. (Compare Schmidt et al.,
"Leader/Followers", 2000. Here no waiter reads for others: a signal handler may delay it.)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import redis.exceptions as theirs

from lockkit.errors import PermissionDenied
from lockkit.lib.bell import Bell
from lockkit.store.log import Log
from lockkit.store.spi import Refused, Unknown
from lockkit.store.starting import OneThread
from lockkit.store.waking import wake_up
from lockkit_redis.connection import pack
from lockkit_redis.failures import replied
from lockkit_redis.server import Server
from lockkit_redis.store import RedisStore
from lockkit_redis.subscription import Gone, Subscription

__all__ = ["Wakes"]

_log = Log("lockkit.redis")
_PATIENCE = 2.0
_PAUSE = 0.05
_LOOK = 10.0
"""Seconds after which a connection that no thread reads is tested."""
_KEPT = 1024
"""Most messages that are kept for waiters to come."""
_DOUBT = 3.0
"""Seconds in which a waiter may come that was queued before the subscription stood."""
_GLANCE = 0.25
"""Seconds that a look at a single waiter may take; if it takes longer the waiter asks for itself."""


class _Watch:
    """One waiter."""

    __slots__ = ("_wakes", "fence", "token", "wake", "where")

    def __init__(self, wakes: Wakes, fence: bytes, where: str, token: str, wake: Callable[[], None]) -> None:
        self._wakes = wakes
        self.fence = fence
        self.where = where
        self.token = token
        self.wake = wake

    def wait(self, bell: Bell, seconds: float) -> bool:
        """Wait for a ring, and read the subscription meanwhile if nobody else does."""
        return self._wakes.wait(self, bell, seconds)

    def close(self) -> None:
        """Stop."""
        self._wakes.forget(self)


class Wakes:
    """The waiters of a client, and the keeper that reads for them, started with the first waiter."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self._mutex = threading.RLock()
        self._watches: dict[bytes, list[_Watch]] = {}
        self._parked: set[_Watch] = set()
        """The waiters for which the keeper reads. While there are any, no other waiter reads."""
        self._early: dict[bytes, None] = {}
        self._subscription: Subscription | None = None
        self._standing = False
        self._stood_at = 0.0
        self._over: Exception | None = None
        """The error for which a waiter has given the subscription up."""
        self._reader: _Watch | None = None
        """The waiter whose thread reads, or the keeper."""
        self._keeper = _Watch(self, b"", "", "", lambda: None)
        self._due = Bell()
        """Rung for the keeper: there may be something to read or to do."""
        self._closed = False
        self._warned = False
        self._thread = OneThread(self._run, "lockkit-redis-wakes")

    def watch(self, fence: str, where: str, token: str, wake: Callable[[], None], *, reads: bool) -> _Watch:
        """Call ``wake`` when a claim's turn comes, or when the message about it may have been missed.

        Args:
            fence: The claim's fence; messages name it.
            where: The key of the claims of its name.
            token: The claim's token.
            wake: Called from any thread.
            reads: True if the waiter's own thread will wait in :meth:`wait`.
        """
        watch = _Watch(self, fence.encode(), where, token, wake)
        try:
            self._add(watch, reads=reads)
        except BaseException:  # the caller has no watch to close
            self.forget(watch)
            raise
        return watch

    def _add(self, watch: _Watch, *, reads: bool) -> None:
        with self._mutex:
            self._watches.setdefault(watch.fence, []).append(watch)  # two nodes may give the same fence
            missed = self._early.pop(watch.fence, self) is None
            with suppress(RuntimeError):  # the process can start no more threads: the poll cap covers it
                self._thread.start()
            doubtful = self._standing and time.monotonic() - self._stood_at < _DOUBT
            if not reads:
                self._park(watch)
        if missed:
            watch.wake()
        elif doubtful:
            self._make_up([watch], _GLANCE)

    def wait(self, watch: _Watch, bell: Bell, seconds: float) -> bool:
        """Wait for a ring; return whether there was one. The thread reads meanwhile, if nobody else waits."""
        end = time.monotonic() + seconds
        subscription = self._enter(watch)
        if subscription is None:
            return bell.wait(seconds)
        try:
            while not self._parked:  # other waiters must not depend on this thread
                bell.alarm = subscription.nudge
                try:
                    if bell.rung():
                        return True
                    left = end - time.monotonic()
                    if left <= 0.0:
                        return False
                    said = subscription.hear(left)
                finally:
                    bell.alarm = None
                if said:
                    self._pass_on(said)
        except _ENDS as error:
            self._give_up(subscription, error)
        except BaseException as error:  # a message that was read may be lost
            self._give_up(subscription, Gone(f"its reader was interrupted: {error!r}"))
            raise
        finally:
            self._leave(watch)
        self._park(watch)
        return bell.wait(end - time.monotonic())

    def forget(self, watch: _Watch) -> None:
        """Remove a waiter."""
        with self._mutex:
            watches = self._watches.get(watch.fence, [])
            if watch in watches:
                watches.remove(watch)
            if not watches:
                self._watches.pop(watch.fence, None)
            self._parked.discard(watch)
            subscription = self._subscription if self._reader is self._keeper and not self._parked else None
        if subscription is not None:
            subscription.nudge()  # the next waiter may read with its own thread
        self._leave(watch)  # a signal handler may have cut an earlier call short

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        subscription = self._subscription
        if subscription is not None:
            subscription.interrupt()  # the thread closes it
        self._due.ring()

    def _enter(self, reader: _Watch) -> Subscription | None:
        """Make this waiter the reader. Returns the subscription; None if the keeper is to read for it."""
        with self._mutex:
            if self._reader is None and self._standing and not self._parked:
                self._reader = reader
                return self._subscription
            self._park(reader)
            return None

    def _park(self, watch: _Watch) -> None:
        """Have the keeper read for this waiter, after the thread that reads alone, if there is one."""
        with self._mutex:
            self._parked.add(watch)
            if self._reader is None:
                self._due.ring()
            elif self._reader is not self._keeper and self._subscription is not None:
                self._subscription.nudge()

    def _leave(self, reader: _Watch) -> None:
        """Read no more. If there are waiters to read for, the keeper does."""
        with self._mutex:
            if self._reader is reader:
                if self._closed or self._parked:
                    self._due.ring()  # before the work: if this is cut short, the work is repeated
                self._reader = None

    def _give_up(self, subscription: Subscription, error: Exception) -> None:
        with self._mutex:
            if self._subscription is subscription:
                self._due.ring()
                self._standing, self._over = False, error

    # -- the thread

    def _run(self) -> None:
        pause = _PAUSE
        while not self._closed:
            began = time.monotonic()
            try:
                self._subscribe()
            except _ENDS as error:
                self._say(error)
            except Exception:  # other waiters need their wakes, whatever the error
                _log.exception("the subscription to %s ended", self._store.where)
            if began < self._stood_at < time.monotonic() - pause:
                pause = _PAUSE
            if not self._closed:
                time.sleep(pause)  # the poll cap covers it
                pause = min(2 * pause, 1.0)

    def _say(self, error: Exception) -> None:
        told = replied(error, self._store) if isinstance(error, theirs.ResponseError) else None
        if told is not None and isinstance(told.error, PermissionDenied) and not self._warned:
            self._warned = True
            _log.warning("%s; until then waiters ask every two seconds", told)
        elif not self._closed:
            _log.debug("the subscription to %s ended: %s", self._store.where, error)

    def _subscribe(self) -> None:
        """Make the subscription, and serve it to its end."""
        subscription = self._subscription = Subscription(self._store)
        try:
            self._begin(subscription)
            self._stand_by(subscription)
        finally:
            self._standing, self._over, self._subscription = False, None, None
            self._leave(self._keeper)  # not before: a waiter would read what has ended
            subscription.close()

    def _begin(self, subscription: Subscription) -> None:
        """Wait until the subscription is up; then wake the waiters that missed a message before."""
        stands = False
        while not stands:
            if self._closed:  # close() may have run before there was a connection
                return
            said = subscription.hear(_LOOK)
            self._pass_on(said)
            stands = any(isinstance(message, list) and message[:1] == [b"subscribe"] for message in said)
        with self._mutex:
            everybody = [watch for watches in self._watches.values() for watch in watches]
            self._standing, self._stood_at = True, time.monotonic()
        self._make_up(everybody)

    def _stand_by(self, subscription: Subscription) -> None:
        """Read for the parked waiters; now and then test whether a connection that nobody reads is alive."""
        look = False
        while True:
            with self._mutex:  # a thread rings before it is done
                if self._over is not None:
                    raise self._over
                if self._closed and self._reader is None:  # a reader must have left before it is closed
                    return
                if self._reader is None and (self._parked or look):
                    self._reader = self._keeper
            while self._reader is self._keeper:
                self._pass_on(subscription.hear(_LOOK if self._parked else 0.0))
                if self._closed or not self._parked:
                    self._leave(self._keeper)
            look = not self._due.wait(_LOOK)

    def _pass_on(self, said: list[Any]) -> None:
        for message in said:
            if isinstance(message, theirs.RedisError):
                raise message
            if not isinstance(message, list) or len(message) != 3 or message[0] != b"message":
                continue
            fence = message[2]
            if not isinstance(fence, bytes):
                continue
            with self._mutex:
                found = self._watches.get(fence)
                if found is None:
                    self._early[fence] = None
                    while len(self._early) > _KEPT:
                        del self._early[next(iter(self._early))]
                    continue
                found = [*found]
            for watch in found:
                wake_up(watch.wake, _log)

    def _make_up(self, watches: list[_Watch], patience: float = _PATIENCE) -> None:
        """Wake the waiters whose claims are no longer WAITING."""
        if not watches:
            return
        together: dict[Server, list[_Watch]] = {}
        for watch in watches:
            try:
                together.setdefault(self._store.topology.at(watch.where), []).append(watch)
            except Refused:
                wake_up(watch.wake, _log)
        for server, some in together.items():
            packed = b"".join(pack("HGET", watch.where, watch.token) for watch in some)
            try:
                states = self._store.row(server, packed, patience, len(some))
            except (Refused, Unknown):
                states = [None] * len(some)
            for watch, state in zip(some, states, strict=True):
                if not isinstance(state, bytes) or b'"WAITING"' not in state:
                    wake_up(watch.wake, _log)


_ENDS = (Refused, theirs.RedisError, OSError, Gone)
"""Errors that end a subscription."""
