"""Messages of a waiting ``lockkit run``: the holder of the lock, and the place in the queue."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from lockkit.cli import output, rows
from lockkit.errors import LockkitError
from lockkit.lib.clock import SYSTEM
from lockkit.lib.namedtuples import NamedTuple
from lockkit.lib.printable import printable
from lockkit.protocol.denials import in_the_way
from lockkit.store.judging import started_this
from lockkit.values import durations
from lockkit.values.identity import process_of

if TYPE_CHECKING:
    from lockkit.cli.signals import Signals
    from lockkit.facts import ClaimInfo, LockInfo, Owner, Waiting
    from lockkit.sync.client import Client

__all__ = ["Announcer", "Told", "blocked_by", "cut", "ordinal"]

TOLD_AT = (0.0, 60.0, 300.0, 900.0)
"""Seconds of waiting at which a message is written, on a terminal or not; after the last one, every hour."""
_HOURLY = 3600.0
_LIVE = 1.0
"""Seconds between two updates of a live line."""
_LONGEST_LOOK = 3.0
_WIDTH = 80
"""Columns of a terminal whose width is unknown."""
_DOTS = "..."


def ordinal(number: int) -> str:
    """Format a number as 1st, 2nd, 3rd, 4th, ... 11th."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


class Told(NamedTuple):
    """A waiting message.

    Attributes:
        line: The message.
        place: The place in the queue.
        holder: The holder in the way.
        why: Why each card will not do now.
        live: The live line of a terminal, which may be shorter; None for the message itself.
    """

    line: str
    place: int
    holder: ClaimInfo | None
    why: Sequence[str] = ()
    live: str | None = None


class Announcer:
    """Writer of waiting messages to stderr: at the start, after 1, 5 and 15 min; on a terminal a live line.

    Every two seconds the store reports the claim's place. A background thread writes messages due between.

    ``as_json``: one ``lockkit.waiting/1`` document for each message, and no live line. ``signals`` end the
    wait even where their exception was swallowed: at the next answer. ``limit``: seconds, or None if not to
    be said.
    """

    _soon = True
    """Whether the first message takes so little time that the thread that waits for the lock can write it."""
    _first = TOLD_AT[0]
    """Seconds of waiting at which the first message is written."""

    def __init__(
        self, client: Client, *, quiet: bool, as_json: bool, signals: Signals, limit: float | None = None
    ) -> None:
        self._limit = limit
        self._client = client
        self._signals = signals
        self._quiet = quiet
        self._json = as_json
        self._live = not quiet and not as_json and output.colour(sys.stderr)
        self._began = SYSTEM.now()
        self._written = 0
        self._latest: Waiting | None = None
        self._line_open = False
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self.waits = 0
        """The number of times that the store answered "queued"."""

    def __call__(self, waiting: Waiting) -> None:
        """Record an answer of the store; the object is the ``on_wait`` of ``Lock.acquire``."""
        self._signals.check()
        self.waits += 1
        self._latest = waiting
        if self._quiet or self._thread is not None:
            return
        self._began = SYSTEM.now() - waiting.waited
        if self._soon:
            self._write(waiting, due=self._due(waiting.waited))
        thread = threading.Thread(target=self._follow, args=(waiting,), name="lockkit-waiting", daemon=True)
        thread.start()
        self._thread = (
            thread  # not before: Ctrl-C in start() leaves one that cannot be joined, and that ends by itself
        )

    def done(self) -> None:
        """End the live line and write nothing more, because the wait is over."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(_LONGEST_LOOK)
        if self._line_open:
            rows.finish()
            self._line_open = False

    def _follow(self, first: Waiting) -> None:
        while True:
            waited = SYSTEM.now() - self._began
            pause = max(self._next() - waited, 0.0)
            if self._over.wait(min(pause, _LIVE) if self._live else pause):
                return
            waited = SYSTEM.now() - self._began
            due = self._due(waited)
            if due or (self._live and self._written):
                self._write((self._latest or first)._replace(holder=None, waited=waited), due=due)

    def _next(self) -> float:
        """Seconds of waiting at which the next line is due."""
        written, most = self._written, len(TOLD_AT)
        if not written:
            return self._first
        return TOLD_AT[written] if written < most else (written - most + 1) * _HOURLY

    def _due(self, waited: float) -> bool:
        if waited < self._next():
            return False
        self._written += 1
        return True

    def _write(self, waiting: Waiting, *, due: bool) -> None:
        line, place, holder, why, live = self._told(waiting, due=due)
        if self._over.is_set():
            return
        if self._json:
            from lockkit.cli import documents
            from lockkit.views.making import made_of

            document = made_of(
                documents.Waiting, waiting, position=place, holder=holder, reasons=why, store=self._client
            )
            output.write_json(document, stream=sys.stderr)
            return
        if self._written == 1 and due and self._limit is not None:
            line += f"; for at most {durations.show(self._limit)}"
        if self._written > 1 and due:
            line += f"; waited {durations.show(waiting.waited)}"
        if self._written == 1 and due:
            output.say(output.store_words(self._client), stream=sys.stderr)
        if self._live:
            self._follow_with(printable(line if live is None else live), printable(line), due=due)
        else:
            output.say(line, stream=sys.stderr)

    def _told(self, waiting: Waiting, *, due: bool) -> Told:  # noqa: ARG002 (for those who look at more)
        """The message of a wait. ``due``: it is one of the rare ones, and no update of a live line."""
        info = self._queue(waiting.name)
        place = _place(waiting, info, self._client.owner)
        holder = (info.holders[0] if info and info.holders else None) or waiting.holder
        line = f"waiting for {waiting.name!r}: you are {ordinal(place)}"
        if holder is not None:
            line += f"; {blocked_by(holder, SYSTEM.wall())}"
        return Told(line, place, holder)

    def _follow_with(self, live: str, line: str, *, due: bool) -> None:
        """Replace the live line, cut to one row. A message that is due and cut is written in full above."""
        fits = cut(live, _columns() - 1)
        rows.live(fits, f"{line}\n" if due and fits != line else "")
        self._line_open = True

    def _queue(self, name: str) -> LockInfo | None:
        try:
            return self._client.inspect(name)
        except LockkitError:
            return None  # the wait continues, and acquire will report the error


def _columns() -> int:
    """The width of the terminal of stderr; standard output may go elsewhere."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or _WIDTH
    except (OSError, ValueError):
        return _WIDTH


def blocked_by(holder: ClaimInfo, wall: float) -> str:
    """Describe the claim in the way; if its process started this command, also that both may deadlock."""
    told = in_the_way(holder, wall)
    return (
        f"{told}; that process started this command, and the two wait for each other if it "
        "waits for the end of this command"
        if started_this(holder)
        else told
    )


def cut(text: str, columns: int) -> str:
    """Cut a text to the given columns of a terminal, with dots at the end if it was too long."""
    from bisect import bisect_right  # late: most runs never wait on a terminal
    from unicodedata import combining, east_asian_width

    ends = list(
        accumulate(0 if combining(one) else 2 if east_asian_width(one) in "WF" else 1 for one in text)
    )
    if not ends or ends[-1] <= columns:
        return text
    return text[: bisect_right(ends, columns - len(_DOTS))] + _DOTS


def _place(waiting: Waiting, info: LockInfo | None, me: Owner) -> int:
    """The place in the queue, 1 for the next one; counted in the queue if this process is found in it."""
    if info is not None:
        for place, claim in enumerate(info.waiters, start=1):
            if process_of(claim.owner) == process_of(me):
                return place
    return max(waiting.position, 1)
