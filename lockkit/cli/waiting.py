"""What a waiting ``lockkit run`` says: who is in the way, and where in line one is."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from lockkit import durations
from lockkit.cli import output

if TYPE_CHECKING:
    from lockkit.client import Client
    from lockkit.facts import ClaimInfo, LockInfo, Waiting

__all__ = ["Announcer", "held_by", "ordinal"]

TOLD_AT = (0.0, 60.0, 300.0, 900.0)
"""Seconds of waiting at which a line is written, terminal or not; then every hour."""
_HOURLY = 3600.0


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, ... 11th."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def held_by(claim: ClaimInfo, now: float) -> str:
    """``held by ann@box pid 4711 (sleep), 12 s``."""
    verb = {"HELD": "held by", "LINGERING": "still blocked after"}.get(claim.state, "next is")
    return f"{verb} {claim.owner}, {durations.show(max(now - claim.since, 0.0))}"


class Announcer:
    """Writes waiting lines to stderr: at the start, at 1, 5 and 15 min, and on a terminal whenever something changes.

    Args:
        client: Asked for the queue when a line is written, so that the place is counted among those who wait.
        quiet: Write nothing.
        as_json: One ``lockkit.waiting/1`` document a line, and no live line.
    """

    def __init__(self, client: Client, *, quiet: bool, as_json: bool) -> None:
        self._client = client
        self._quiet = quiet
        self._json = as_json
        self._live = not quiet and not as_json and output.colour(sys.stderr)
        self._told = 0
        self._line_open = False
        self.waits = 0
        """How often the store answered "queued"."""
        self.first: Waiting | None = None

    def __call__(self, waiting: Waiting) -> None:
        """Take note of an answer; this is what ``Lock.acquire`` is given as ``on_wait``."""
        self.waits += 1
        self.first = self.first or waiting
        if self._quiet:
            return
        due = self._due(waiting.waited)
        if due or self._live:
            self._write(waiting, due=due)

    def done(self) -> None:
        """The wait is over: end the live line."""
        if self._line_open:
            sys.stderr.write("\n")
            sys.stderr.flush()
            self._line_open = False

    def _due(self, waited: float) -> bool:
        at = TOLD_AT[self._told] if self._told < len(TOLD_AT) else (self._told - len(TOLD_AT) + 1) * _HOURLY
        if waited < at:
            return False
        self._told += 1
        return True

    def _write(self, waiting: Waiting, *, due: bool) -> None:
        info = self._queue(waiting.name)
        place = _place(waiting, info)
        holder = waiting.holder or (info.holders[0] if info and info.holders else None)
        now = _wall()
        if self._json:
            document = {
                "schema": "lockkit.waiting/1",
                "name": waiting.name,
                "position": place,
                "waited_seconds": waiting.waited,
                "holder": None if holder is None else output.claim(holder),
                "store": output.store(self._client),
            }
            output.write_json(document, stream=sys.stderr)
            return
        line = f"waiting for {waiting.name!r}: you are {ordinal(place)}"
        if holder is not None:
            line += f"; {held_by(holder, now)}"
        if self._told > 1 and due:
            line += f"; waited {durations.show(waiting.waited)}"
        if self._told == 1 and due:
            sys.stderr.write(f"store: {self._client.url} (from {self._client.url_source})\n")
        sys.stderr.write(f"\r\x1b[K{line}" if self._live else f"{line}\n")
        sys.stderr.flush()
        self._line_open = self._live

    def _queue(self, name: str) -> LockInfo | None:
        from lockkit.errors import LockkitError

        try:
            return self._client.inspect(name)
        except LockkitError:
            return None  # the wait goes on, and acquire will say what is wrong


def _place(waiting: Waiting, info: LockInfo | None) -> int:
    if info is None:
        return max(waiting.position, 1)
    ahead = [claim for claim in info.claims[: waiting.position] if claim.state in ("WAITING", "OFFERED")]
    return len(ahead) + 1


def _wall() -> float:
    import time

    return time.time()
