"""The event journal: a plugin that writes each event and alert of a client as a line of JSON.

The setting ``journal`` turns it on. The threads that call plugins write, so no acquire or release waits; only
the first lock of a client waits, a bounded time, for its first row. Numbers, for each client and process,
show gaps; a closed client writes a last line. A crash of the machine may lose the last seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from pathlib import Path

from lockkit.config.store_names import store_of
from lockkit.facts import NOTHING, Alert, Event, Owner
from lockkit.lib.bell import Bell
from lockkit.lib.forks import Forks
from lockkit.lib.namedtuples import NamedTuple
from lockkit.lib.origin import this_origin
from lockkit.lib.printable import printable
from lockkit.observe.appending import append, regular, rotated
from lockkit.store.log import Log
from lockkit.values.identity import this_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lockkit.config.config import Config
    from lockkit.facts import Scope
    from lockkit.lib.clock import Clock

__all__ = ["FILE", "VERSION", "EventJournal", "Journaled", "Place", "place_of"]

FILE = "events.jsonl"
VERSION = 1
"""The version of the lines; a reader skips and counts lines of a version that it does not know."""
_LONGEST = 32_768
"""Bytes of a line; a longer one goes without its data."""
_DAY = 86_400.0
_LOOK_AT_AGE = 3600.0
"""Seconds between two looks at the age of the files."""
_MOST_OWED = 1000
_PATIENCE = 0.25
"""Seconds for which the first lock of a client waits for the first row."""
_log = Log("lockkit.journal")


class Place(NamedTuple):
    """Where a journal is written.

    Attributes:
        path: The file; renamed files are beside it.
        mode: The rights of the file.
    """

    path: Path
    mode: int


class Journaled(NamedTuple):
    """The part of each line that names its client: the store, and how far the locks of that store reach."""

    store: str
    scope: Scope
    namespace: str


def place_of(config: Config, scope: Scope) -> Place:
    """The journal of this user for a store.

    In the shared folder of a store of all users of a host, each user has a file that the group may read. Else
    the file is private, in ``journal`` of the state folder or in the configured folder.

    Raises:
        ConfigError, BackendUnavailable: The state folder cannot be used.
    """
    scheme, _, path = config.url.partition(":")
    if config.journal_folder is None and scope == "host" and scheme == "sqlite" and path.startswith("/"):
        return Place(Path(path.partition("?")[0]).parent / f"events-{this_process().user}.jsonl", 0o640)
    if config.journal_folder is not None:
        return Place(Path(config.journal_folder).expanduser() / FILE, 0o600)
    return Place(config.state_place().path / "journal" / FILE, 0o600)


class EventJournal:
    """The journal of one client. Safe in threads and in forked children.

    Args:
        dropped: Counts a line that could not be written; called with the name of the counter.

    Raises:
        ConfigError, BackendUnavailable: The state folder cannot be used.
    """

    def __init__(
        self, config: Config, scope: Scope, owner: Owner, dropped: Callable[[str], object] = len
    ) -> None:
        self._dropped = dropped
        self._place = place_of(config, scope)
        self._about = Journaled(store_of(config), scope, config.namespace)
        self._size = max(config.journal_max_size, 1) << 20
        self._keep = config.journal_keep
        self._age = config.journal_max_age
        self._task = owner.task
        self._writing = _Writing(owner)
        self._beginning = threading.Lock()
        self._begun = False

    def begin(self, clock: Clock, start: Callable[[Callable[[], None], str], object]) -> None:
        """Write a client's first row before it asks for a lock: a killed process leaves it, without an end.

        Waits at most :data:`_PATIENCE`, because a folder may hang. Thread-safe; there is one row.

        Args:
            clock: The clock of the client.
            start: Starts a thread, given a function and a name.
        """
        done = Bell()

        def write() -> None:
            try:
                with self._beginning:
                    if not self._begun:
                        self._begun = True
                        line = {"kind": "opened", "at": clock.wall(), "boottime": clock.now()}
                        self._write(line, NOTHING)
            finally:
                done.ring()

        try:
            start(write, "lockkit-journal")
            written = done.wait(_PATIENCE)
        except RuntimeError:  # no more threads, and this one must not wait for a folder
            written = False
        if not written:
            _log.warning(
                "the event journal %s was not written within %g s; "
                "if this process is killed now, no audit will know of it",
                printable(str(self._place.path)),
                _PATIENCE,
            )

    def lockkit_event(self, event: Event) -> None:
        """Write an event."""
        line: dict[str, object] = {
            "kind": event.kind,
            "name": event.name,
            "claim": event.claim_id,
            "fence": event.fence,
            "reason": event.reason,
            "at": event.at,
            "boottime": event.boottime,
            "duration": event.duration,
            "until": event.until,
        }
        if event.capacity != 1 or event.lock != "mutex":
            line |= {"lock": event.lock, "weight": event.weight, "capacity": event.capacity}
        self._write(line, event.data)

    def lockkit_alert(self, alert: Alert) -> None:
        """Write an alert."""
        line: dict[str, object] = {
            "kind": "alert",
            "alert": alert.kind,
            "priority": alert.priority,
            "message": alert.message,
            "name": alert.name,
            "claim": alert.claim_id,
            "at": alert.at,
        }
        self._write(line, alert.data)

    def _write(self, line: dict[str, object], data: Mapping[str, object]) -> None:
        writing = self._writing
        if not writing.origin.is_here():
            writing = self._writing = _Writing(this_process(self._task))
        owner = writing.owner
        about = {
            "store": self._about.store,
            "scope": self._about.scope,
            "namespace": self._about.namespace,
            "user": owner.user,
            "host": owner.host,
            "pid": owner.pid,
            "boot": owner.boot_id,
            "started": owner.started,
            "program": owner.program,
            "task": owner.task,
        }
        kept = {key: value for key, value in (line | about).items() if value not in (None, "")}
        told = {key: value for key, value in data.items() if value is not None}
        with writing.mutex:
            texts = []
            if writing.lost and not writing.began:
                # Readers see a gap between two lines of a writer, and none before its first line.
                missed = {"kind": "missed", "at": line["at"], "data": {"count": writing.lost}}
                texts.append(writing.numbered(missed | {key: kept[key] for key in about if key in kept}))
            text = writing.numbered(kept | ({"data": told} if told else {}))
            texts.append(text if len(text) <= _LONGEST else writing.numbered(kept, again=True))
            try:
                for each in texts:
                    self._append(each, now=self._is_old(writing))
                    writing.began = True
                self._append_owed()
            except OSError as error:
                self._failed(
                    writing, error, texts if line["kind"] == "closed" else [], alert=line["kind"] == "alert"
                )
            else:
                writing.failed = False

    def _append(self, text: str, *, now: bool = False) -> None:
        place = self._place
        append(place.path, text, rotate_at=self._size, keep=self._keep, sync=False, mode=place.mode, now=now)

    def _append_owed(self) -> None:
        """Write the last lines of clients that were closed while nothing could be written."""
        if _OWED.rows:
            with _OWED.mutex:
                while owed := _OWED.rows.get(self._place.path):
                    self._append(owed[0])
                    owed.pop(0)

    def _failed(self, writing: _Writing, error: OSError, last: list[str], *, alert: bool) -> None:
        """Log and count a line that could not be written. Readers see its unused number as a gap."""
        shown = printable(str(self._place.path))
        if not writing.failed:
            _log.error(
                "cannot write the event journal %s: %s; what happens now will be missing in it", shown, error
            )
        writing.failed = True
        if not last:
            writing.lost += 1
            self._dropped("alerts_dropped" if alert else "events_dropped")
            return
        # Without its last line, a closed client of a living process would look like one without news.
        with _OWED.mutex:
            owed = _OWED.rows.setdefault(self._place.path, [])
            owed += last[: _MOST_OWED - len(owed)]
        if writing.lost:
            _log.error(
                "%d lines could not be written to the event journal %s, and are missing in it",
                writing.lost,
                shown,
            )

    def _is_old(self, writing: _Writing) -> bool:
        """Whether to rename the file for its age, checked hourly. Removes renamed files that are too old."""
        now = time.time()
        if self._age is None or now - writing.looked < _LOOK_AT_AGE:
            return False
        writing.looked = now
        for path in rotated(self._place.path):
            with contextlib.suppress(OSError):  # another process may remove it, too
                if now - path.stat().st_mtime > self._age:
                    path.unlink()
        return now - _first(self._place.path, now) > min(self._age, _DAY)


class _Writing:
    """The state of a journal in one process.

    Attributes:
        failed: Whether the last line could not be written.
        began: Whether any line was written.
        lost: The lines that could not be written.
    """

    def __init__(self, owner: Owner) -> None:
        self.origin = this_origin()
        self.owner = owner
        self.name = os.urandom(6).hex()
        self.count = 0
        self.looked = 0.0
        self.failed = False
        self.began = False
        self.lost = 0
        self.mutex = threading.Lock()

    def numbered(self, line: Mapping[str, object], *, again: bool = False) -> str:
        """A line with the next number of this writer, or once more with the last one."""
        self.count += not again
        return json.dumps({"v": VERSION, "writer": self.name, "n": self.count, **line}, default=str)


def _first(path: Path, now: float) -> float:
    """The time of the first line of a file; now if that is unknown."""
    try:
        with regular(path) as opened:
            for line in opened.read(2 * _LONGEST).splitlines()[:3]:
                if line.strip():
                    return float(json.loads(line)["at"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return now


class _Owed:
    """Last lines of clients closed while a file was unwritable, by file; the next good write adds them."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget everything: in a forked child the lines are the parent's."""
        self.rows: dict[Path, list[str]] = {}
        self.mutex = threading.Lock()


_OWED = _Owed()
Forks(in_child=_OWED.restart)
