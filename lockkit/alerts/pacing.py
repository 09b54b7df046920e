"""The decision when a channel is tried next, and with how many notifications. Pure: the time and the chance come from the caller.

After a failure the channel pauses, twice as long each time, with jitter ("full jitter" halved, so that a pause has a lower bound; see
https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/). A service that says when it wants to be asked again is
obeyed. No window contains more messages than the limit: the last message that the limit leaves room for is a summary of all that wait.
"""

from __future__ import annotations

from typing import TypeAlias

from lockkit.namedtuples import NamedTuple

__all__ = ["Decision", "Limits", "Pace", "Send", "Wait", "after_failure", "after_success", "decide"]

_LONGEST_WISH = 3600.0
"""The longest pause in seconds that a service may ask for."""
_FEW = 64
"""From this number of failures on, another doubling changes nothing."""


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
        until: The time before which nothing is tried.
        sent: The times of the messages that the service took, or may have taken, within the window; oldest first.
    """

    failures: int = 0
    until: float = 0.0
    sent: tuple[float, ...] = ()


class Wait(NamedTuple):
    """Try nothing for some seconds; None: until there is something to send."""

    seconds: float | None


class Send(NamedTuple):
    """Send some of the oldest notifications: one by itself, several as a summary."""

    oldest: int


Decision: TypeAlias = Wait | Send


def decide(pace: Pace, limits: Limits, now: float, *, waiting: int, urgent: bool) -> Decision:
    """Decide what to do now.

    Args:
        pace: What has been done.
        limits: How much the channel takes.
        now: The time, on the clock of ``pace``.
        waiting: The number of notifications that wait.
        urgent: Whether a P0 is among them, which may use the reserve.
    """
    if not waiting:
        return Wait(None)
    if pace.until > now:
        return Wait(pace.until - now)
    sent = _within(pace.sent, limits, now)
    usable = limits.most - (0 if urgent else limits.reserve)
    left = usable - len(sent)
    if left <= 0:
        return Wait(max(sent[-left] + limits.window - now, 0.001))
    return Send(min(waiting, limits.summary) if left == 1 else 1)


def after_success(pace: Pace, limits: Limits, now: float) -> Pace:
    """The pace after a message that the service took."""
    return Pace(0, 0.0, (*_within(pace.sent, limits, now), now))


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
    pause = min(limits.longest, limits.first * 2.0 ** (failures - 1)) * (0.5 + chance / 2.0)
    if wish is not None:
        pause = max(pause, min(wish, _LONGEST_WISH))
    sent = _within(pace.sent, limits, now)
    return Pace(failures, now + pause, (*sent, now) if maybe else sent)


def _within(sent: tuple[float, ...], limits: Limits, now: float) -> tuple[float, ...]:
    return tuple(at for at in sent if at > now - limits.window)
