"""The decision when to try a channel next, and with how many notifications. Pure: time and chance are given.

After a failure the channel pauses, twice as long each time, with jitter ("full jitter" halved, for a lower
bound: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/), or as the service asks. No
window contains more messages than the limit; the last one within it summarizes all that wait.

A message that the service rejects pauses alone. So does one that failed three times, once another is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from lockkit.lib.namedtuples import NamedTuple

__all__ = [
    "Decision",
    "Limits",
    "Pace",
    "Send",
    "Trial",
    "Wait",
    "after_failure",
    "after_success",
    "choose",
    "decide",
    "refused",
    "suspect",
]

_LONGEST_WISH = 3600.0
"""The longest pause in seconds that a service may ask for."""
_FEW = 64
"""From this number of failures on, another doubling changes nothing."""
_TRIES = 3
"""Failures in a row after which another message is tried, to learn whether service or message is at fault."""


class Limits(NamedTuple):
    """The limits of a channel.

    Attributes:
        most: The most messages in any window.
        window: Seconds for which ``most`` counts.
        first: Seconds of the pause after the first failure.
        longest: Seconds of the longest pause that the doubling leads to.
        summary: The most notifications in one summary.
    """

    most: int = 30
    window: float = 3600.0
    first: float = 1.0
    longest: float = 300.0
    summary: int = 200

    @property
    def reserve(self) -> int:
        """The messages of each window that are kept for P0."""
        return self.most // 4


class Pace(NamedTuple):
    """The record of a channel: failures, and the messages of the window.

    Attributes:
        failures: The failures since the last success.
        until: The time before which nothing is tried that was tried before.
        asked: The time before which the service wants to be left alone.
        sent: The times of messages that the service took, or may have taken, within the window; oldest first.
    """

    failures: int = 0
    until: float = 0.0
    asked: float = 0.0
    sent: tuple[float, ...] = ()


class Trial(NamedTuple):
    """The record of a notification that waits.

    Attributes:
        group: The key of the group.
        urgent: Whether it is P0.
        tries: The failures since the service last objected to it.
        objections: How often the service objected to it or took only others; 0 if it is not set aside.
        until: The time before which it is not tried.
        rejected: Whether the service said that it is at fault.
    """

    group: str
    urgent: bool
    tries: int = 0
    objections: int = 0
    until: float = 0.0
    rejected: bool = False


class Wait(NamedTuple):
    """Try nothing for some seconds; None: until there is something to send."""

    seconds: float | None


class Send(NamedTuple):
    """Send some of the oldest notifications: one by itself, several as a summary."""

    oldest: int


Decision: TypeAlias = Wait | Send


def choose(trials: Mapping[int, Trial], pace: Pace, now: float) -> tuple[int, ...]:
    """The numbers of notifications to send now: the next one, then, oldest first, those to summarize with it.

    A group's notifications go in order, but do not wait for a rejected one, nor a P0 for a lesser one that
    failed 3 times. While the channel pauses, only an untried P0 may go. One that was set aside goes alone.

    Args:
        trials: All that wait, by number, oldest first.
        pace: What has been done.
        now: The time, on the clock of ``pace``.
    """
    ahead: dict[str, Trial] = {}
    stuck: set[str] = set()
    heads: list[int] = []
    together: list[int] = []
    for number, one in trials.items():
        first = ahead.setdefault(one.group, one)
        if first is one or _passes(one, first):
            ahead[one.group] = one
            if one.until <= now and (
                pace.until <= now or (one.urgent and not one.tries and not one.objections)
            ):
                heads.append(number)
        if one.objections:
            if not one.rejected:
                stuck.add(one.group)
        elif one.group not in stuck:
            together.append(number)
    if not heads:
        return ()
    best = min(heads, key=lambda number: (trials[number].tries // _TRIES, trials[number].objections))
    if trials[best].objections or pace.until > now:
        return (best,)
    return (best, *(number for number in together if number != best))


def _passes(one: Trial, earlier: Trial) -> bool:
    """Whether a notification need not wait for an earlier one of its group."""
    return earlier.rejected or (
        one.urgent and not earlier.urgent and (suspect(earlier) or earlier.objections > 0)
    )


def suspect(trial: Trial) -> bool:
    """Whether a notification failed so often that it is at fault, if the service takes others."""
    return trial.tries >= _TRIES


def refused(trial: Trial, limits: Limits, now: float, chance: float) -> Trial:
    """The record of a notification that the service objects to: set aside for a time that doubles."""
    pause = _pause(limits, trial.objections + 1, chance)
    return trial._replace(tries=0, objections=trial.objections + 1, until=now + pause)


def decide(pace: Pace, limits: Limits, now: float, *, waiting: int, urgent: bool) -> Decision:
    """Decide what to do now.

    Args:
        pace: What has been done.
        limits: How much the channel takes.
        now: The time, on the clock of ``pace``.
        waiting: How many notifications may be tried; 0 while the channel pauses, unless one was never tried.
        urgent: Whether a P0 is among them, which may use the reserve.
    """
    pause = pace.asked if waiting else pace.until
    if pause > now:
        return Wait(pause - now)
    if not waiting:
        return Wait(None)
    sent = _within(pace.sent, limits, now)
    usable = limits.most - (0 if urgent else limits.reserve)
    left = usable - len(sent)
    if left <= 0:
        return Wait(max(sent[-left] + limits.window - now, 0.001))
    return Send(min(waiting, limits.summary) if left == 1 else 1)


def after_success(pace: Pace, limits: Limits, now: float) -> Pace:
    """The pace after a message that the service took."""
    return Pace(sent=(*_within(pace.sent, limits, now), now))


def after_failure(
    pace: Pace, limits: Limits, now: float, chance: float, *, wish: float | None = None, maybe: bool = False
) -> Pace:
    """The pace after an attempt that failed.

    Args:
        pace: What has been done before.
        limits: How much the channel takes.
        now: The time at which the attempt ended.
        chance: A number from 0 up to 1.
        wish: Seconds for which the service wants to be left alone.
        maybe: Whether the service may have taken the message, so that it counts in the window.
    """
    failures = min(pace.failures + 1, _FEW)
    asked = now + min(wish or 0.0, _LONGEST_WISH)
    sent = _within(pace.sent, limits, now)
    until = max(now + _pause(limits, failures, chance), asked)
    return Pace(failures, until, asked, (*sent, now) if maybe else sent)


def _pause(limits: Limits, failures: int, chance: float) -> float:
    doubled = limits.first * 2.0 ** (min(failures, _FEW) - 1)
    return min(limits.longest, doubled) * (0.5 + chance / 2.0)


def _within(sent: tuple[float, ...], limits: Limits, now: float) -> tuple[float, ...]:
    return tuple(at for at in sent if at > now - limits.window)
