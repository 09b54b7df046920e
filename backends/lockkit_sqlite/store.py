"""The state that all calls of the embedded store share, such as connections, and the removal of the dead."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from lockkit.facts import ClaimInfo, Keeper
from lockkit.lib.forks import Forks
from lockkit.lib.origin import this_origin
from lockkit.store.crowds import Crowds
from lockkit.store.inherited import inherited
from lockkit.store.judging import keepers
from lockkit.store.log import Log
from lockkit.store.perlock import per_lock
from lockkit.store.queue import prefix
from lockkit.store.sharing import LastFailure
from lockkit.store.spi import GRACE as _GRACE
from lockkit.store.spi import OpenOptions, Refused, Unknown
from lockkit.store.untrusted import object_in
from lockkit.values.names import claim_id
from lockkit_sqlite import connection as connections
from lockkit_sqlite import statements as sql
from lockkit_sqlite.connection import OPENING, Connection
from lockkit_sqlite.failures import raise_if_foreign, two_boots
from lockkit_sqlite.files import FILES, look, watched
from lockkit_sqlite.layout import LINGERING, WAITING, micros
from lockkit_sqlite.opening import Opening, mark_anew
from lockkit_sqlite.place import Place, prepare
from lockkit_sqlite.presence import inode
from lockkit_sqlite.pulse import ALIVE, DEAD, UNKNOWN, Health, eviction, remove, stale
from lockkit_sqlite.pulses import LISTENER
from lockkit_sqlite.rows import Front, LockColumns, Row, check_rows, claim_info, front_of, read_rows, unread

__all__ = ["GRACE", "SQLiteStore"]

GRACE = micros(_GRACE)
"""Microseconds that a waiter may be silent, and that an offer may stay unanswered."""
_MARKING = 0.5
_MOVING = 0.4
"""Seconds that a call may spend on opening new files, after the old ones were removed or replaced."""
_RECENT = 3600.0
"""Seconds for which a program that opens a store is warned that it was made anew."""
_told: set[tuple[str, float]] = set()
_REPLACED = "the database was removed or replaced"
_LOOK = 0.1
"""Seconds between two looks at all files."""
_SWEPT = 64
_FRONT = 4
"""Claims of a queue that are read to find out whom to wake: those of a mutex, and a few more."""
_SEEN = 1.0
"""Seconds for which the processes that keep a pulse are remembered."""
_CACHED = 1024
"""Locks whose columns are kept: that saves an acquire 2 us, but a program with many locks takes each once."""

_log = Log("lockkit.sqlite")


class SQLiteStore:
    """One open file.

    Attributes:
        calls: The connection for callers.
        beats: The connection for the heartbeat, which must not queue behind callers.
        pulses: The FIFOs that this process has open.
        left: The highest fence that was granted in files that are gone.
        columns: The columns that all claims of a lock share.
        crowds: The names for which a claim of this client waited a moment ago.
        placed: The fences of this client's waiting claims, by token, as far as they are known.
    """

    def __init__(self, place: Place, options: OpenOptions, *, adopt: bool = False) -> None:
        # Forked by other means than os.fork, or a signal handler interrupted every hook.
        _after_fork_in_child()
        self.place = place
        self._given = str(place.given)
        self._options = options
        self._adopt = adopt
        self.clock = options.clock
        self.namespace = options.namespace
        self.boot = options.owner.boot_id or _boot_id()
        self._closed = False
        self._moving = threading.RLock()
        self._failure = LastFailure()
        self._generation = 0
        self._looks_at = 0.0
        self.left = 0
        self._keepers: dict[str, tuple[float, tuple[Keeper, ...]]] = {}
        self.files = watched(place.path)
        self.crowds: Crowds[str] = Crowds(options.clock.now)
        self.placed: dict[str, int] = {}
        self.columns = per_lock(lambda terms: LockColumns.of(terms, self.namespace, self.boot), _CACHED)
        try:
            self._open(time.monotonic() + options.budget)
            self.pulses = LISTENER.enter(place.pulses, place.mode, self)
            self._remember()
        except BaseException:  # a traceback may keep this object for long
            LISTENER.leave(place.pulses, self)
            self._leave()
            raise

    def _open(self, end: float) -> str:
        """Open the files or make them anew; return the damage for which they were made anew, or nothing."""
        old = getattr(self, "calls", None)
        opening = Opening(self.place, self.files, self._options, self, end, old=old, adopt=self._adopt)
        calls, beats = opening.connect()
        self._generation = opening.generation
        self.calls, self.beats = self._guarded(calls), self._guarded(beats)
        return opening.why

    def _leave(self) -> None:
        """Close the connections, and only then give up the lock on the files."""
        for name in ("calls", "beats"):
            if name in vars(self):  # it was opened
                vars(self)[name].close()
        self.files.leave(self)

    def _guarded(self, connection: Connection) -> Connection:
        """The connection, with a check for removed or replaced files. A call keeps using it after a move."""
        generation = self._generation
        connection.whole = lambda: generation == self._generation and self.whole()
        return connection

    def whole(self) -> bool:
        """Whether the files with these names are those that this store has open. True if the look fails."""
        given, files = self._given, self.files
        try:
            if look(given, self.place.path) != files.opened:
                with OPENING:  # a fork under way holds it
                    if files.inside and files.damage(given):
                        return False
        except OSError as error:
            raise_if_foreign(error)
            return True
        return self._generation == files.generation and files.inside

    def follow(self, end: float = math.inf, *, closely: bool = False) -> None:
        """Switch to the files that now have the names, if somebody removed or replaced one of the open files.

        SQLite would go on using the old files, where no process that opens the store later can see the
        claims. Claims in the old files are lost; fences keep rising.

        Args:
            end: ``time.monotonic()`` at which to give up at the latest.
            closely: Look at each file. Otherwise each call looks at the database, and at the others only
                every 0.1 s: while this process has its lock on the lock file, nobody makes the store anew.

        Raises:
            Refused: They cannot be made anew, or not be looked at.
        """
        before = time.monotonic()
        if before < self._looks_at and not closely and self._database_stays():
            return
        if self._closed or self.pulses.inherited:
            return
        if not self.whole():
            self._move(end)
        self.pulses.heal()
        self._looks_at = before + _LOOK

    def _database_stays(self) -> bool:
        files = self.files
        try:
            return self._generation == files.generation and inode(self._given) == files.opened.database
        except OSError as error:
            raise_if_foreign(error)
            return False

    def _move(self, end: float) -> None:
        """Open the files that have the names now, unless another thread has done so or closes the store."""
        asked = time.monotonic()
        with self._moving:
            self._failure.check(asked)
            if not self.whole() and not self._closed:  # in this order: a closed store has no files
                try:
                    self._open_others(min(end, asked + _MOVING))
                except Refused as refusal:
                    self._failure.keep(time.monotonic(), refusal)
                    raise
        if self._closed:  # the thread that closed it has not seen what was opened meanwhile
            self.close()

    def _open_others(self, end: float) -> None:
        old = self.place
        self.place = prepare(old.given, old.synchronous, shared=old.shared)
        if self.place.path != old.path:  # a link leads elsewhere now
            self.pulses.leave(self, self._unused)
            self._leave()
            self.pulses = LISTENER.enter(self.place.pulses, self.place.mode, self)
            self.files = watched(self.place.path)
        why = self._open(end) or _REPLACED
        self.left = int(self.clock.wall() * 1e6)
        mark_anew(self.calls, why, self._options, time.monotonic() + _MARKING)
        at, told = self.anew()
        _told.add((self.place.path, at))
        _log.warning(
            "%s: its files were removed or replaced while this process had them open (%s); what was held "
            "in them is lost (keep cleaners and backups away from them; to free a lock, use lockkit evict)",
            self.place.path,
            told or why,
        )

    def anew(self) -> tuple[float, str]:
        """When (seconds since 1970) the store was made anew, and why; 0 and empty if it never was."""
        try:
            found = self.calls.read(
                "SELECT value FROM meta WHERE key = 'anew'", (), time.monotonic() + _MARKING
            )
            row = object_in(found[0][0]) or {} if found else {}
            return float(row.get("at", 0.0)), str(row.get("why", ""))
        except (Refused, Unknown, ValueError, TypeError):
            return 0.0, ""

    def _remember(self) -> None:
        """Warn a program that opens a store made anew a short while ago: its user may miss locks."""
        at, why = self.anew()
        if 0 <= self.clock.wall() - at < _RECENT and (self.place.path, at) not in _told:
            _told.add((self.place.path, at))
            _log.warning(
                "%s was made anew at %s, because %s; what was held in it then is lost",
                self.place.path,
                time.strftime("%H:%M:%S", time.localtime(at)),
                why,
            )

    def new_connection(self) -> Connection:
        """Return a new connection for one release.

        Raises:
            Refused: This is a forked child: its parent's claims are none of its own.
        """
        if self.pulses.inherited:
            raise inherited(self.place.path)
        self.follow()
        return self._guarded(Connection(self.place, self.clock, lock=self.files))

    def now(self) -> int:
        """CLOCK_BOOTTIME microseconds."""
        return int(self.clock.now() * 1e6)

    def epoch(self) -> int:
        """Microseconds since 1970 minus CLOCK_BOOTTIME."""
        return int((self.clock.wall() - self.clock.now()) * 1e6)

    def queue(self, connection: Connection, name: str, end: float) -> list[Row]:
        """The queue of a name, as it is.

        Raises:
            Refused: A claim in it cannot be read.
        """
        rows = self.seen(connection, name, end)
        check_rows(rows, name, self.now())
        return rows

    def seen(self, connection: Connection, name: str, end: float) -> list[Row]:
        """The queue of a name, for people: with claims that cannot be read."""
        return read_rows(connection.read(sql.QUEUE, (self.namespace, name), end))

    def front(self, connection: Connection, name: str, end: float) -> Sequence[Front | Row]:
        """The claims of a queue that may hold, and at least one more, if any. Rarely reads a long queue."""
        rows = front_of(connection.read(sql.FRONT, (self.namespace, name, _FRONT), end))
        if rows is not None and (len(rows) < _FRONT or prefix(rows) + 1 < _FRONT):
            return rows
        return self.queue(connection, name, end)

    def settle(self, connection: Connection, name: str, rows: list[Row], now: int, end: float) -> bool:
        """Remove lapsed claims and claims of another boot; True if there were any.

        Raises:
            Refused: The process of a claim of another boot is alive, in a container with another boot id.
        """
        if any(unread(row, now) for row in rows):
            return False  # what cannot be read decides nothing
        lapsed = any(row.deadline <= now for row in rows if row.boot == self.boot)
        elsewhere = {row.fifo for row in rows if row.boot != self.boot}
        if elsewhere:
            if any(self.pulses.health(fifo) == ALIVE for fifo in elsewhere):
                raise two_boots(self.place.path, name)
            epoch, boot = self.epoch(), self.boot
            connection.write(sql.BURY_BOOT, lambda at: (self.namespace, name, boot, at, at + epoch), end)
            connection.change(sql.DELETE_BOOT, (self.namespace, name, boot), end)
        if lapsed:
            connection.write(sql.DELETE_LAPSED, lambda at: (self.namespace, name, at), end)
        return lapsed or bool(elsewhere)

    def bury(self, connection: Connection, fifo: str, end: float) -> None:
        """Remove a dead process's claims, whatever their ttl, or let them linger. Then remove its FIFO."""
        connection.write(sql.BURY_FIFO, lambda now: (fifo, now), end)
        connection.change(sql.DELETE_FIFO, (fifo,), end)
        remove(self.place.pulses, fifo)

    def bury_dead(self, connection: Connection, name: str, rows: list[Row], end: float) -> bool:
        """Remove those of these claims whose processes are dead; True if there were any."""
        found = False
        health: dict[str, Health] = {}
        for row in rows:
            if row.state == LINGERING:
                continue
            if row.fifo not in health:
                health[row.fifo] = self.pulses.health(row.fifo)
                if health[row.fifo] == DEAD:
                    self.bury(connection, row.fifo, end)
                    found = True
            if health[row.fifo] == UNKNOWN and row.process_bound and row.silence <= self.now():
                self._bury_silent(connection, name, row.token, end)
                found = True
        return found

    def _bury_silent(self, connection: Connection, name: str, token: str, end: float) -> None:
        connection.write(sql.BURY_SILENT, lambda now: (self.namespace, now, name, token), end)
        connection.write(sql.DELETE_SILENT, lambda now: (self.namespace, now, name, token), end)

    def ring_fitting(
        self,
        connection: Connection,
        name: str,
        end: float,
        *,
        mine: str = "",
        next_too: bool = False,
        gone: int = 0,
    ) -> None:
        """Wake the waiters that fit now. Best effort: a lost wake costs a poll cap, not a place.

        The next in line watches its blockers as they were when it asked. If the claim that left may have been
        among them, the next in line is woken too, to look for another. Among claims of one weight it watches
        the nearest, and need not be woken if a nearer claim fits: that keeps a hand-off from waking two.

        Args:
            connection: The connection to read over.
            name: The lock.
            end: ``time.monotonic()`` at which to give up.
            mine: A token that needs no bell.
            next_too: Whether to wake the next in the queue as well: its time to ask again has changed.
            gone: The weight of the claim that left.
        """
        try:
            for _ in range(8):
                rows = self.front(connection, name, end)
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
                    self.bury(connection, fifo, end)
        except (Refused, Unknown):
            pass

    def ring(self, row: Front | Row) -> Health:
        """Have the owner of a claim ask again."""
        return self.pulses.ring(row.fifo, bytes.fromhex(claim_id(row.token)))

    def tell_evicted(self, row: Row) -> None:
        """Announce through the FIFO of a claim's process that the claim is about to be evicted."""
        self.pulses.ring(row.fifo, eviction(claim_id(row.token)))

    def facts(self, name: str, rows: list[Row], place: int, health: Health | None = None) -> ClaimInfo:
        """A claim of a queue as a fact, with what its pulse says if that was asked."""
        return claim_info(name, rows, place, boot=self.boot, epoch=self.epoch(), health=health)

    def keepers(self, fifo: str) -> tuple[Keeper, ...]:
        """The processes that keep a pulse, seen within the last second: one may have many claims."""
        now = self.clock.now()
        seen = self._keepers.get(fifo)
        if seen is None or seen[0] < now:
            self._keepers = {name: found for name, found in self._keepers.items() if found[0] >= now}
            seen = self._keepers[fifo] = now + _SEEN, keepers(fifo)
        return seen[1]

    def sweep(self, end: float) -> None:
        """Remove some of the FIFOs that dead processes left, with their claims. Best effort."""
        try:
            for fifo in list(stale(self.place.pulses, _SWEPT)):
                self.bury(self.calls, fifo, end)
        except (Refused, Unknown):
            pass

    def close(self) -> None:
        """Close the connections, and the pulse if no claim needs it. May be repeated."""
        self._closed = True
        self.pulses.leave(self, self._unused)
        self._leave()

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
    except OSError as error:
        raise_if_foreign(error)
        return ""


def _after_fork_in_child() -> None:
    """Drop what a forked child inherited. Only once: an earlier hook may have opened the child's stores."""
    if _process.origin.is_here():
        return
    LISTENER.forget()  # first: until then the child vouches for its parent
    for files in list(FILES.values()):
        files.bare()
    FILES.clear()
    connections.after_fork_in_child()
    _process.origin = this_origin()


class _Process:
    """The process for which this module is set up."""

    origin = this_origin()


_process = _Process()
_forks = Forks(
    before=connections.before_fork,
    in_parent=connections.after_fork_in_parent,
    in_child=_after_fork_in_child,
    locks=(LISTENER.lock, OPENING),
)
connections.take_part(_forks)
