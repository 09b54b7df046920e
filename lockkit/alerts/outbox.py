"""The outbox of a channel: the waiting notifications, the next one, and its fate. No threads, no own clock.

The guarantee: a notification that :meth:`Outbox.add` took is sent at least once, in order within its group,
by this process or a later one, as long as the disk keeps it. (One whose sending is in doubt is sent again;
the order is that of the last times.) It is given up only if the service objects to it and takes others: ten
times, or until a later one of its group, which says more, is taken. On a channel that keeps state, a group's
waiting ones are sent as one: the last, with the ends of the earlier ones.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from lockkit.alerts.notification import Notification
from lockkit.alerts.outcomes import NotDelivered, told
from lockkit.alerts.pacing import (
    Limits,
    Pace,
    Trial,
    Wait,
    after_failure,
    after_success,
    choose,
    decide,
    refused,
    suspect,
)
from lockkit.alerts.sharing import Told, merged, remember
from lockkit.alerts.spool import Kept, Spool
from lockkit.alerts.summary import summary
from lockkit.errors import BackendUnavailable
from lockkit.lib.clock import SYSTEM, Clock, jitter
from lockkit.lib.namedtuples import NamedTuple

__all__ = ["Batch", "Counts", "Outbox", "Space"]

_log = logging.getLogger("lockkit.alerts")
_OBJECTIONS = 10
"""The number of objections after which a notification is given up, once the service takes another."""


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
        superseded: Notifications that a later one of their group replaced.
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
        keeps_state: Whether the service keeps a state for each group, which later notifications replace.
        clock: The clocks.
        chance: Returns a number from 0 up to 1, for the jitter.

    Attributes:
        told: The alerts that were sent to the channel, and whose end will be sent.
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
        self._trials: dict[int, Trial] = {}
        self._size = 0
        self._unspooled = 0
        self._pace = Pace()
        self._spool = None if folder is None else self._opened(folder)

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def failures(self) -> int:
        """The failures since the last success."""
        return self._pace.failures

    @property
    def set_aside(self) -> int:
        """The notifications that wait because the service objected to them."""
        return sum(one.objections > 0 for one in self._trials.values())

    def add(self, notification: Notification) -> bool:
        """Take a notification, on disk if possible. False without room: then it is counted as dropped."""
        most = self.space if notification.severity == "P0" else _three_quarters(self.space)
        if len(self._waiting) >= most.notifications or self._size >= most.size:
            if not self.counts.dropped:
                _log.error("alerts for channel %s are dropped: %d wait already", self.name, len(self))
            self._count(dropped=1)
            return False
        kept = self._kept(notification)
        self._wait(kept)
        remember(self.told, notification)
        return True

    def next(self) -> Wait | Batch:
        """Decide what to do now: wait, or send a batch."""
        now = self._clock.now()
        trials = self._trials
        if self.keeps_state:  # the last of a group represents all of it
            trials = dict({one.group: (number, one) for number, one in trials.items()}.values())
        numbers = choose(trials, self._pace, now)
        urgent = any(trials[number].urgent for number in numbers)
        decision = decide(self._pace, self.limits, now, waiting=len(numbers), urgent=urgent)
        if isinstance(decision, Wait):
            ends = [one.until - now for one in trials.values() if one.until > now]
            return Wait(min(ends if decision.seconds is None else [decision.seconds, *ends], default=None))
        if self.keeps_state:
            group = trials[numbers[0]].group
            chosen = {number for number, one in self._trials.items() if one.group == group}
        else:
            chosen = set(numbers[: decision.oldest])
        parts = tuple(kept for number, kept in self._waiting.items() if number in chosen)
        many = [kept.notification for kept in parts]
        if self.keeps_state or len(many) == 1:
            return Batch(merged(many), parts)
        return Batch(summary(many, self.name, self._clock.wall()), parts)

    def settle(self, batch: Batch, error: BaseException | None, secrets: tuple[str, ...] = ()) -> None:
        """Record what became of a batch: None if the service took it."""
        now = self._clock.now()
        if error is None:
            self._pace = after_success(self._pace, self.limits, now)
            replaced = self._replaced(batch.parts)
            self._remove(batch.parts, self._clock.wall())
            self._remove(replaced, None)
            self._count(delivered=1, superseded=len(replaced))
            if len(batch.parts) > 1:
                count = len(batch.parts)
                self._count(**({"superseded": count - 1} if self.keeps_state else {"summarised": count}))
            self._judge(now)
            return
        maybe = not isinstance(error, NotDelivered)
        wish = error.retry_after if isinstance(error, NotDelivered) else None
        objected = isinstance(error, NotDelivered) and error.rejected
        paused = after_failure(self._pace, self.limits, now, self._chance(), wish=wish, maybe=maybe)
        # A message that the service objects to holds up no other.
        self._pace = self._pace._replace(failures=paused.failures) if objected else paused
        if maybe:  # the next process counts it in the window, too
            self._note((), self._clock.wall())
        self.last_error = told(error, secrets)
        self._count(failed=1)
        for kept in batch.parts:
            trial = self._trials[kept.number]
            trial = trial._replace(tries=trial.tries + 1)
            if objected:
                trial = refused(trial, self.limits, now, self._chance())._replace(rejected=True)
            self._trials[kept.number] = trial
        # The first failure is news, and so is each doubling of their number.
        failures = self._pace.failures
        level = logging.WARNING if failures & (failures - 1) == 0 else logging.DEBUG
        _log.log(level, "channel %s failed (%d in a row): %s", self.name, failures, self.last_error)

    def _judge(self, now: float) -> None:
        """After a success: set repeated failures aside, as the service is well, and give up rejected ones."""
        for number, tried in list(self._trials.items()):
            trial = refused(tried, self.limits, now, self._chance()) if suspect(tried) else tried
            self._trials[number] = trial
            if trial.objections >= _OBJECTIONS:
                _log.error(
                    "channel %s rejects the alert of group %s, which is given up: %s",
                    self.name,
                    trial.group,
                    self.last_error,
                )
                self._remove((self._waiting[number],), None)
                self._count(given_up=1)
        if not self.set_aside:
            self.last_error = ""

    def _replaced(self, parts: tuple[Kept, ...]) -> tuple[Kept, ...]:
        """The notifications that wait although the service has taken a later one of their group."""
        last = {kept.notification.group: kept for kept in parts}
        found = []
        for kept in self._waiting.values():
            group = kept.notification.group
            if last.get(group) is kept:
                del last[group]
            elif group in last and kept not in parts:
                found.append(kept)
        return tuple(found)

    def close(self) -> None:
        """Close the spool, in which waiting notifications stay."""
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
        for kept in spool.found:
            self._wait(kept)
        self.told = spool.told
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

    def _wait(self, kept: Kept) -> None:
        told_of = kept.notification
        self._waiting[kept.number] = kept
        self._trials[kept.number] = Trial(told_of.group, told_of.severity == "P0")
        self._size += kept.size

    def _remove(self, parts: tuple[Kept, ...], at: float | None) -> None:
        for kept in parts:
            self._size -= self._waiting.pop(kept.number).size
            del self._trials[kept.number]
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
