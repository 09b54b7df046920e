"""Rules for a held card: when it is idle (not if unknown) or overused. Pure: no I/O, no clock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from lockkit.lib.namedtuples import NamedTuple
from lockkit.lib.noted import RESERVED, moment, whole_number
from lockkit.values import durations
from lockkit.values.sizes import MIB, show

__all__ = ["CardNews", "CardNotice", "Course", "Reading", "Rules", "news_in", "news_patch"]

GAP = 150.0
"""Seconds between readings after which the gap is unknown: the machine was suspended, or the driver hung."""
SHORT = 60.0
"""Seconds of idleness that are not reported."""
STEP = 256 * MIB
"""Bytes by which the use must change to be reported anew."""


class Rules(NamedTuple):
    """The limits of the configuration.

    Attributes:
        idle_below: The percentage below which a card counts as idle.
        idle_after: Seconds after which an idle card is reported; None for never.
    """

    idle_below: int
    idle_after: float | None


class Reading(NamedTuple):
    """A held card at one moment. The default is that of a card of which nothing can be told.

    Attributes:
        utilisation: The percentage of the last moments in which it computed; None if unknown.
        used: The bytes that its holder uses; None if unknown.
        faults: What is known to be wrong with it, a sentence each.
        declared: The bytes that its holder has declared; None for a whole card.
    """

    utilisation: int | None = None
    used: int | None = None
    faults: tuple[str, ...] = ()
    declared: int | None = None


class CardNotice(NamedTuple):
    """A sentence about a held card, for an event of this kind; with the seconds that it lasted, if known."""

    kind: Literal["gpu_faulty", "gpu_idle", "gpu_overused"]
    why: str
    duration: float | None = None


class CardNews(NamedTuple):
    """The last news of a holder about its card, from the note of its claim.

    Attributes:
        used: The bytes that it uses; None if unknown.
        idle_since: Since when the card is idle, in seconds since the epoch; None if it is not, or unknown.
        at: When the holder said so, in seconds since the epoch.
    """

    used: int | None = None
    idle_since: float | None = None
    at: float = 0.0


class Course:
    """The course of one hold on one card.

    Args:
        rules: The limits.

    Attributes:
        idle_since: Since when the card is idle, by the caller's clock; None if it is not, or unknown.
        used: The bytes that the holder uses; None if unknown.
        faults: All faults so far.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._at: float | None = None
        self._reported_idle = self._over = False
        self._news: tuple[int | None, bool] = (None, False)
        self.idle_since: float | None = None
        self.used: int | None = None
        self.faults: tuple[str, ...] = ()

    def take(self, reading: Reading, now: float) -> list[CardNotice]:
        """Take a reading. Returns its events: a fault once, idleness and overuse once until they are over."""
        if self._at is not None and now - self._at > GAP:
            self.idle_since, self._reported_idle = None, False
        self._at, self.used = now, reading.used
        return [
            *self.found(reading.faults),
            *self._idle(reading.utilisation, now),
            *self._overuse(reading.declared),
        ]

    def found(self, faults: tuple[str, ...]) -> list[CardNotice]:
        """Take faults, at any time. Returns a notice for each new one."""
        new = [one for one in faults if one not in self.faults]
        self.faults = (*self.faults, *new)
        return [CardNotice("gpu_faulty", one) for one in new]

    def _idle(self, utilisation: int | None, now: float) -> list[CardNotice]:
        if utilisation is None or utilisation >= self._rules.idle_below:
            self.idle_since, self._reported_idle = None, False
            return []
        if self.idle_since is None:
            self.idle_since = now
        idle, after = now - self.idle_since, self._rules.idle_after
        if after is None or idle < after or self._reported_idle:
            return []
        self._reported_idle = True
        why = f"it has computed less than {self._rules.idle_below} % of the time for {durations.show(idle)}"
        return [CardNotice("gpu_idle", why, idle)]

    def _overuse(self, declared: int | None) -> list[CardNotice]:
        if declared is None or self.used is None:
            return []
        was, self._over = self._over, self.used > declared
        if was or not self._over:
            return []
        return [CardNotice("gpu_overused", f"{show(self.used)} used, {show(declared)} declared")]

    def news(self, now: float, wall: float) -> CardNews | None:
        """Take the unreported news; None if there is none.

        Args:
            now: The time by the caller's clock.
            wall: The same time in seconds since the epoch.
        """
        idle = self.idle_since is not None and now - self.idle_since >= SHORT
        used, was_idle = self._news
        moved = (self.used is None) != (used is None) or abs((self.used or 0) - (used or 0)) >= STEP
        if idle == was_idle and not moved:
            return None
        self._news = self.used, idle
        since = wall - (now - self.idle_since) if idle and self.idle_since is not None else None
        return CardNews(self.used, since, wall)

    def untold(self) -> None:
        """Forget that the last news was told: it did not reach the store."""
        self._news = (None, False)


def news_patch(news: CardNews) -> dict[str, object]:
    """The patch that puts news into the note of a claim, in place of earlier ones."""
    since = None if news.idle_since is None else round(news.idle_since)
    return {RESERVED: {"gpu": {"used": news.used, "idle_since": since, "at": round(news.at)}}}


def news_in(note: Mapping[str, object]) -> CardNews | None:
    """The news in the note of a claim; None if there is none. A value of a wrong type counts as missing."""
    own = note.get(RESERVED)
    news = own.get("gpu") if isinstance(own, Mapping) else None
    if not isinstance(news, Mapping):
        return None
    since, at = (moment(news.get(key)) for key in ("idle_since", "at"))
    return CardNews(whole_number(news.get("used")), since, at or 0.0)
