"""The outbox of a channel: what waits, what is sent next, and what becomes of it. No threads, and the clock is passed in.

The guarantee: a notification that :meth:`Outbox.add` took is sent at least once, in the order in which it came, by this process or a later one
that opens the same spool, as long as the disk keeps what was written. It is given up only if the service objected to it ten times in a row. On a
channel that keeps state those that wait for a group are sent as one, the last, which also tells what the earlier ones told to be over.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from lockkit.alerts.notification import Notification
from lockkit.alerts.outcomes import NotDelivered, told
from lockkit.alerts.pacing import Limits, Pace, Wait, after_failure, after_success, decide
from lockkit.alerts.sharing import Told, merged, remember
from lockkit.alerts.spool import Kept, Spool
from lockkit.alerts.summary import summary
from lockkit.clock import SYSTEM, Clock, jitter
from lockkit.errors import BackendUnavailable
from lockkit.namedtuples import NamedTuple

__all__ = ["Batch", "Counts", "Outbox", "Space"]

_log = logging.getLogger("lockkit.alerts")
_OBJECTIONS = 10
"""The number of objections in a row after which a notification is given up."""


class Space(NamedTuple):
    """The room for what waits for a channel. The last quarter of each is kept for P0.

    Attributes:
        notifications: The most notifications.
        size: The most bytes.
    """

    notifications: int = 2000
    size: int = 10 * 1024 * 1024


class Batch(NamedTuple):
    """A message to send now, and the notifications that it is made of."""

    notification: Notification
    parts: tuple[Kept, ...]


class Counts(NamedTuple):
    """Counts of an outbox.

    Attributes:
        delivered: Messages that the service took.
        summarised: Notifications that were sent as parts of summaries.
        failed: Attempts that failed.
        superseded: Notifications that were sent as a part of a later one of their group.
        dropped: Notifications for which there was no room.
        given_up: Notifications that the service objected to.
        unspooled: Notifications that could not be written to the disk, and waited in memory only.
        damaged: Lines of the spool that could not be read.
    """

    delivered: int = 0
    summarised: int = 0
    failed: int = 0
    superseded: int = 0
    dropped: int = 0
    given_up: int = 0
    unspooled: int = 0
    damaged: int = 0


class Outbox:
    """The notifications that wait for one channel. Not thread-safe.

    Args:
        name: The name of the channel.
        folder: The folder of the spool; None to keep everything in memory.
        limits: How much the channel takes.
        space: How much may wait.
        keeps_state: Whether the service keeps the state of each group, so that a later notification replaces an earlier one.
        clock: The clocks.
        chance: Returns a number from 0 up to 1, for the jitter.

    Attributes:
        told: The alerts that the channel was told of, and will be told to be over.
    """

    def __init__(
        self,
        name: str,
        folder: Path | None,
        limits: Limits | None = None,
        space: Space | None = None,
        *,
        keeps_state: bool = False,
        clock: Clock = SYSTEM,
        chance: Callable[[], float] = jitter,
    ) -> None:
        self.name = name
        self.limits = limits or Limits()
        self.space = space or Space()
        self.keeps_state = keeps_state
        self.counts = Counts()
        self.last_error = ""
        self._clock = clock
        self._chance = chance
        self.told: Told = {}
        self._waiting: dict[int, Kept] = {}
        self._size = 0
        self._unspooled = 0
        self._objections = 0
        self._pace = Pace()
        self._spool = None if folder is None else self._opened(folder)

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def failures(self) -> int:
        """The failures since the last success."""
        return self._pace.failures

    def add(self, notification: Notification) -> bool:
        """Take a notification, on disk if possible. False if there is no room for it; then it is counted, and logged if it is the first."""
        most = self.space if notification.severity == "P0" else _three_quarters(self.space)
        if len(self._waiting) >= most.notifications or self._size >= most.size:
            if not self.counts.dropped:
                _log.error("alerts for channel %s are dropped: %d wait already", self.name, len(self))
            self._count(dropped=1)
            return False
        kept = self._kept(notification)
        self._waiting[kept.number] = kept
        self._size += kept.size
        remember(self.told, notification)
        return True

    def next(self) -> Wait | Batch:
        """Decide what to do now: wait, or send a batch."""
        waiting = list(self._waiting.values())
        urgent = any(kept.notification.severity == "P0" for kept in waiting)
        decision = decide(self._pace, self.limits, self._clock.now(), waiting=len(waiting), urgent=urgent)
        if isinstance(decision, Wait):
            return decision
        if self.keeps_state:
            group = waiting[0].notification.group
            parts = [kept for kept in waiting if kept.notification.group == group]
            return Batch(merged([kept.notification for kept in parts]), tuple(parts))
        parts = waiting[: decision.oldest]
        if len(parts) == 1:
            return Batch(parts[0].notification, tuple(parts))
        told_together = summary([kept.notification for kept in parts], self.name, self._clock.wall())
        return Batch(told_together, tuple(parts))

    def settle(self, batch: Batch, error: BaseException | None, secrets: tuple[str, ...] = ()) -> None:
        """Record what became of a batch: None if the service took it."""
        now = self._clock.now()
        if error is None:
            self._pace = after_success(self._pace, self.limits, now)
            self._objections = 0
            self.last_error = ""
            self._remove(batch.parts, self._clock.wall())
            more = len(batch.parts) - 1
            if self.keeps_state:
                self._count(delivered=1, superseded=more)
            else:
                self._count(delivered=1, summarised=more and more + 1)
            return
        refused = isinstance(error, NotDelivered)
        wish = error.retry_after if isinstance(error, NotDelivered) else None
        self._pace = after_failure(self._pace, self.limits, now, self._chance(), wish=wish, maybe=not refused)
        if not refused:  # the next process counts it in the window, too
            self._note((), self._clock.wall())
        self.last_error = told(error, secrets)
        self._count(failed=1)
        objected = isinstance(error, NotDelivered) and error.rejected
        self._objections = self._objections + 1 if objected else 0
        # The first failure is news, and so is each doubling of their number.
        failures = self._pace.failures
        level = logging.WARNING if failures & (failures - 1) == 0 else logging.DEBUG
        _log.log(level, "channel %s failed (%d in a row): %s", self.name, failures, self.last_error)
        if self._objections >= _OBJECTIONS:
            _log.error(
                "channel %s rejects the alert of group %s, which is given up: %s",
                self.name,
                batch.notification.group,
                self.last_error,
            )
            self._objections = 0
            self._remove(batch.parts, None)
            self._count(given_up=len(batch.parts))

    def close(self) -> None:
        """Close the spool. What waits stays in it."""
        spool, self._spool = self._spool, None
        if spool is not None:
            spool.close()

    def _opened(self, folder: Path) -> Spool | None:
        try:
            spool = Spool(folder, self.name)
        except (OSError, BackendUnavailable) as error:
            _log.error("channel %s has no spool, so a restart loses what waits: %s", self.name, error)
            return None
        self._count(damaged=spool.damaged)
        self._waiting = {kept.number: kept for kept in spool.found}
        self.told = spool.told
        self._size = sum(kept.size for kept in spool.found)
        now, wall = self._clock.now(), self._clock.wall()
        self._pace = Pace(sent=tuple(now - max(wall - at, 0.0) for at in spool.sent))
        return spool

    def _kept(self, notification: Notification) -> Kept:
        if self._spool is not None:
            try:
                return self._spool.add(notification)
            except OSError as error:
                if not self.counts.unspooled:
                    _log.error("an alert for channel %s waits in memory only: %s", self.name, error)
        self._count(unspooled=1)
        self._unspooled += 1
        return Kept(-self._unspooled, notification, 0)

    def _remove(self, parts: tuple[Kept, ...], at: float | None) -> None:
        for kept in parts:
            self._size -= self._waiting.pop(kept.number).size
        self._note(parts, at)

    def _note(self, parts: tuple[Kept, ...], at: float | None) -> None:
        """Write to the spool that notifications are done, and when a message was sent."""
        if self._spool is not None:
            try:
                self._spool.done([kept.number for kept in parts if kept.number > 0], at)
            except OSError as error:
                _log.warning("the spool of channel %s cannot be written: %s", self.name, error)

    def _count(self, **more: int) -> None:
        self.counts = self.counts._replace(
            **{key: getattr(self.counts, key) + by for key, by in more.items()}
        )


def _three_quarters(space: Space) -> Space:
    return Space(space.notifications - space.notifications // 4, space.size - space.size // 4)
