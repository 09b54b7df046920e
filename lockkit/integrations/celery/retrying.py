"""The wait of a task that is sent repeatedly: its form in messages, and the time of the next try. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping

from lockkit.lib.namedtuples import NamedTuple
from lockkit.lib.noted import moment, whole_number

__all__ = ["HEADER", "LONGEST", "SHORTEST", "Wait", "countdown", "in_hand", "wait_in"]

HEADER = "lockkit_wait"
"""The header of a message that says since when its task waits for a lock."""
SHORTEST, LONGEST = 2.0, 30.0
"""Seconds from one try to the next, at least and at most."""
_IN_HAND = 5.0
"""The most seconds for which a copy of a message is kept in hand, where it occupies a slot of the pool."""


class Wait(NamedTuple):
    """The wait of a task for its lock, over all messages by which it was sent again.

    Attributes:
        since: The time of the first try, in seconds since the epoch, by the clock of the worker that made it.
        tries: The number of tries before this one.
        retries: The number of the task's own retries. A task that held its lock and then retried waits anew.
    """

    since: float
    tries: int = 0
    retries: int = 0

    def left(self, now: float, most: float | None) -> float | None:
        """Seconds left of a wait of ``most`` seconds; None without limit. Clock steps back count as 0."""
        return None if most is None else max(0.0, most - max(0.0, now - self.since))

    def header(self) -> dict[str, float | int]:
        """The header of the next message."""
        return {"since": self.since, "tries": self.tries + 1, "retries": self.retries}


def wait_in(headers: Mapping[str, object] | None, retries: int, now: float) -> Wait:
    """The wait in a message's headers, or a new one if they make no sense: anybody may write them."""
    told = (headers or {}).get(HEADER)
    if isinstance(told, Mapping):
        since, tries = moment(told.get("since")), whole_number(told.get("tries"))
        if since is not None and tries is not None and told.get("retries") == retries:
            return Wait(min(since, now), tries, retries)
    return Wait(now, 0, retries)


def countdown(
    tries: int,
    left: float | None,
    visibility: float | None,
    draw: Callable[[float, float], float] = random.uniform,
) -> float:
    """Seconds until the next try, drawn from a span that doubles each time: from 2 to 4 s up to 2 to 30 s.

    So tries that failed together come apart. The last one comes when the wait is over. Pauses stay well below
    the visibility timeout, after which a second worker would get the message that this one keeps.

    Args:
        tries: The number of tries so far.
        left: The seconds that are left of the wait; None if it has no limit.
        visibility: The visibility timeout of the broker in seconds; None if it has none.
        draw: Draws a number between two.
    """
    most = min(LONGEST, SHORTEST * 2.0 ** min(tries + 1, 8))
    if visibility is not None:
        most = min(most, visibility / 2.0)
    drawn = draw(min(SHORTEST, most), most)
    return drawn if left is None else min(drawn, left)


def in_hand(
    visibility: float | None,
    limits: Iterable[float | None] = (),
    draw: Callable[[float, float], float] = random.uniform,
) -> float:
    """Seconds for which a copy of a message is kept in hand before it is given back to the broker: 2 to 5.

    Meanwhile a broker that confuses deliveries removes it when the first run ends. The pause stays below half
    of the visibility timeout, to avoid more copies, and of each time limit, which would end the task.

    Args:
        visibility: The visibility timeout of the broker in seconds; None if it has none.
        limits: The time limits of the run in seconds; None for none.
        draw: Draws a number between two.
    """
    most = min([_IN_HAND, *(limit / 2.5 for limit in (visibility, *limits) if limit)])
    return draw(min(SHORTEST, most), most)
