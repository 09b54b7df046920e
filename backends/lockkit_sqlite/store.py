"""What the rooms of the embedded store share: its connections, its pulse, its clock, and the removal of the dead."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import NamedTuple

from lockkit.facts import ClaimInfo
from lockkit.names import claim_id
from lockkit.queue import prefix
from lockkit.spi import OpenOptions, Refused, Terms, Unknown
from lockkit_sqlite import link as links
from lockkit_sqlite import statements as sql
from lockkit_sqlite.failures import inherited, no_log
from lockkit_sqlite.layout import DDL, FAR, LINGERING, PAGE_SIZE, WAITING, check_layout, layout_row
from lockkit_sqlite.link import Link
from lockkit_sqlite.place import Place, prepare
from lockkit_sqlite.pulse import DEAD, UNKNOWN, Health, stale
from lockkit_sqlite.rows import Row, claim_info, info_text, read_rows
from lockkit_sqlite.watcher import REGISTRY

__all__ = ["GRACE", "Store", "micros"]

GRACE = 6_000_000
"""Microseconds that a waiter may be silent, and that an offer stands unanswered: three poll caps."""
_OPENING = 2.0
_SWEPT = 64
_KNOWN = 256


def micros(seconds: float) -> int:
    """Seconds as whole microseconds."""
    return round(seconds * 1e6)


class Stated(NamedTuple):
    """Terms in the units of the file.

    Attributes:
        deadline: From the grant to the deadline; None for never.
        silence: From the grant to the deadline by ttl alone.
        hold_end: From the grant to the end of max_hold; None for never.
    """

    terms: Terms
    ttl: int
    min_hold: int
    lock_delay: int
    deadline: int | None
    silence: int
    hold_end: int | None
    info: str

    @classmethod
    def of(cls, terms: Terms) -> Stated:
        """These terms."""
        ttl, min_hold, lock_delay = micros(terms.ttl), micros(terms.min_hold), micros(terms.lock_delay)
        hold_end = None if terms.max_hold is None else micros(terms.max_hold)
        ends = [each for each in (None if terms.process_bound else ttl, hold_end) if each is not None]
        end = min(ends, default=None)
        return cls(
            terms,
            ttl,
            min_hold,
            lock_delay,
            None if end is None else max(end + lock_delay, min_hold),
            max(ttl + lock_delay, min_hold),
            hold_end,
            info_text(terms),
        )

    def deadlines(self, now: int) -> tuple[int, int, int]:
        """Of a claim granted now: its deadline, the same by ttl alone, and the end of max_hold."""
        return (
            FAR if self.deadline is None else now + self.deadline,
            now + self.silence,
            FAR if self.hold_end is None else now + self.hold_end,
        )


class Store:
    """One open file. ``calls`` serves callers, ``beats`` the heartbeat, which must not queue behind them."""

    def __init__(self, place: Place, options: OpenOptions) -> None:
        self.place = place
        self.clock = options.clock
        self.namespace = options.namespace
        self.owner = options.owner
        self.boot = options.owner.boot_id or _boot_id()
        self._closed = False
        self._moving = threading.RLock()
        self._open()
        self.house = REGISTRY.enter(place.pulses, place.mode)
        self._stated: dict[int, Stated] = {}

    def _open(self) -> None:
        calls = self.fresh_link()
        try:
            self._file = self._seen()
            self._lay(calls, time.monotonic() + _OPENING)
            beats = self.fresh_link()
        except BaseException:
            calls.close()
            raise
        self.calls, self.beats = calls, beats

    def _seen(self) -> tuple[int, int] | None:
        try:
            seen = os.stat(self.place.path)  # noqa: PTH116 - a microsecond matters: Path.stat takes three
        except OSError:
            return None
        return seen.st_dev, seen.st_ino

    def follow(self) -> None:
        """Go over to the file that now bears the name, if somebody removed or replaced the one that is open.

        SQLite would go on with the old one, unseen by every newcomer. Claims in it are lost; fences go on rising.
        """
        if self._seen() == self._file:
            return
        with self._moving:
            if self._seen() == self._file or self._closed or self.house.inherited:
                return
            prepare(Path(self.place.path), self.place.synchronous)
            self._open()  # a call under way keeps the old connections until it is done

    def fresh_link(self) -> Link:
        """A new connection to the file."""
        return Link(self.place.path, self.clock, synchronous=self.place.synchronous)

    def emergency_link(self) -> Link:
        """A new connection for one release, unless this is a forked child: its parent's claims are none of its own."""
        if self.house.inherited:
            raise inherited(self.place.path)
        return self.fresh_link()

    def _lay(self, link: Link, end: float) -> None:
        """Check the layout, or lay it in a new file."""
        found = link.read("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'meta'", (), end)
        stored = link.read("SELECT value FROM meta WHERE key = 'layout'", (), end) if found else []
        if not stored:
            link.read(f"PRAGMA page_size={PAGE_SIZE}", (), end)
            mode = link.read("PRAGMA journal_mode=WAL", (), end)
            if mode != [("wal",)]:
                raise no_log(self.place.path)
            for statement in DDL:
                link.write(statement, lambda _: (), end)
            row = layout_row(self.owner)
            link.write("INSERT OR IGNORE INTO meta VALUES ('layout', ?1)", lambda _: (row,), end)
            stored = link.read("SELECT value FROM meta WHERE key = 'layout'", (), end)
        check_layout(stored[0][0], self.place.path)

    def now(self) -> int:
        """CLOCK_BOOTTIME microseconds."""
        return int(self.clock.now() * 1e6)

    def epoch(self) -> int:
        """Microseconds since 1970 minus CLOCK_BOOTTIME."""
        return int((self.clock.wall() - self.clock.now()) * 1e6)

    def stated(self, terms: Terms) -> Stated:
        """The terms of a lock as they are stored, worked out once for each lock."""
        known = self._stated.get(id(terms))
        if known is None or known.terms is not terms:
            if len(self._stated) >= _KNOWN:
                self._stated.clear()
            known = self._stated[id(terms)] = Stated.of(terms)
        return known

    def queue(self, link: Link, name: str, end: float) -> list[Row]:
        """The queue of a name, as it is."""
        return read_rows(link.read(sql.QUEUE, (self.namespace, name), end), name)

    def settle(self, link: Link, name: str, rows: list[Row], now: int, end: float) -> bool:
        """Remove what has lapsed, and claims of another boot. Whether there was any."""
        lapsed = any(row.deadline <= now for row in rows if row.boot == self.boot)
        elsewhere = any(row.boot != self.boot for row in rows)
        if elsewhere:
            epoch, boot = self.epoch(), self.boot
            link.write(sql.BURY_BOOT, lambda at: (self.namespace, name, boot, at, at + epoch), end)
            link.write(sql.DELETE_BOOT, lambda _: (self.namespace, name, boot), end)
        if lapsed:
            link.write(sql.DELETE_LAPSED, lambda at: (self.namespace, name, at), end)
        return lapsed or elsewhere

    def bury(self, link: Link, fifo: str, end: float) -> None:
        """Remove all claims of a dead process, whatever their ttl; what must linger lingers. Then its FIFO."""
        link.write(sql.BURY_FIFO, lambda now: (fifo, now), end)
        link.write(sql.DELETE_FIFO, lambda _: (fifo,), end)
        try:
            Path(self.place.pulses, fifo).unlink(missing_ok=True)
        except OSError:
            pass

    def bury_dead(self, link: Link, name: str, rows: list[Row], end: float) -> bool:
        """Remove the dead among these claims. Whether there was any."""
        found = False
        health: dict[str, Health] = {}
        for row in rows:
            if row.state == LINGERING:
                continue
            if row.fifo not in health:
                health[row.fifo] = self.house.health(row.fifo)
                if health[row.fifo] == DEAD:
                    self.bury(link, row.fifo, end)
                    found = True
            if health[row.fifo] == UNKNOWN and row.process_bound and row.silence <= self.now():
                self._bury_silent(link, name, row.token, end)
                found = True
        return found

    def _bury_silent(self, link: Link, name: str, token: str, end: float) -> None:
        link.write(sql.BURY_SILENT, lambda now: (self.namespace, now, name, token), end)
        link.write(sql.DELETE_SILENT, lambda now: (self.namespace, now, name, token), end)

    def ring_fitting(
        self, link: Link, name: str, end: float, *, mine: str = "", next_too: bool = False, gone: int = 0
    ) -> None:
        """Ring for those who wait and fit now. Best effort: a lost wake costs a poll cap, not a place.

        The next in line watches its blockers as they were when it asked. If the one that left may have been among them,
        it is told as well, so that it looks for another. Among claims of one weight it watches the nearest, so it need not
        be told where somebody nearer fits now: that is what keeps a hand-off from waking two.

        Args:
            link: The connection to read over.
            name: The lock.
            end: ``time.monotonic()`` at which to give up.
            mine: A token that needs no bell.
            next_too: Also the next in line, whose time to ask again has moved.
            gone: The weight of the claim that left.
        """
        try:
            for _ in range(8):
                rows = self.queue(link, name, end)
                fits = prefix(rows)
                nearer = any(row.state == WAITING for row in rows[:fits])
                uneven = any(row.weight != gone for row in rows[: fits + 1])
                upto = fits + (1 if next_too or not nearer or (gone and uneven) else 0)
                dead = [
                    row.fifo
                    for row in rows[:upto]
                    if row.state == WAITING and row.token != mine and self.ring(row) == DEAD
                ]
                if not dead:
                    return
                for fifo in dead:
                    self.bury(link, fifo, end)
        except (Refused, Unknown):
            pass

    def ring(self, row: Row) -> Health:
        """Tell the owner of a claim to ask again."""
        return self.house.ring(row.fifo, bytes.fromhex(claim_id(row.token)))

    def facts(self, name: str, rows: list[Row], place: int, *, ask: bool = False) -> ClaimInfo:
        """A claim of a queue as a fact; ``ask`` its pulse too."""
        health = self.house.health(rows[place].fifo) if ask else None
        return claim_info(name, rows, place, boot=self.boot, epoch=self.epoch(), health=health)

    def sweep(self, end: float) -> None:
        """Remove some of the FIFOs that dead processes left, with their claims. Best effort."""
        try:
            for fifo in list(stale(self.place.pulses, _SWEPT)):
                self.bury(self.calls, fifo, end)
        except (Refused, Unknown):
            pass

    def close(self) -> None:
        """Close the connections, and the pulse if nothing depends on it."""
        if self._closed:
            return
        self._closed = True
        REGISTRY.leave(self.house, self._unused)
        self.calls.close()
        self.beats.close()

    def _unused(self, fifo: str) -> bool:
        try:
            return not self.calls.read(
                "SELECT 1 FROM entries WHERE fifo = ?1 LIMIT 1", (fifo,), time.monotonic() + 0.5
            )
        except (Refused, Unknown):
            return False


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _before_fork() -> None:
    REGISTRY.lock.acquire()
    links.before_fork()


def _after_fork_in_parent() -> None:
    links.after_fork_in_parent()
    REGISTRY.lock.release()


def _after_fork_in_child() -> None:
    REGISTRY.forget()  # first: until then the child vouches for its parent
    links.after_fork_in_child()


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
)
