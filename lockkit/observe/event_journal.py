"""The event journal: a plugin on the stream of events that writes each event and alert as a line of JSON, so that the past can be read.

The setting ``journal`` turns it on. It writes on the threads that call plugins, so no acquire and no release waits for it. Events that do not
reach it leave a gap that readers see: each line has a number, counted for each client and process, and the line of a client that was closed
is its last one. A crash of the machine may lose the last seconds, because lines are not forced to stable storage one by one.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from pathlib import Path

from lockkit.facts import Alert, Event, Owner
from lockkit.identity import this_process
from lockkit.namedtuples import NamedTuple
from lockkit.observe.appending import append, regular, rotated
from lockkit.printable import printable
from lockkit.redaction import redact

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from lockkit.config import Config
    from lockkit.facts import Scope

__all__ = ["FILE", "VERSION", "EventJournal", "Journaled", "Place", "place_of"]

FILE = "events.jsonl"
VERSION = 1
"""The version of the lines; a reader skips and counts lines of a version that it does not know."""
_LONGEST = 32_768
"""Bytes of a line; a longer one goes without its data."""
_DAY = 86_400.0
_LOOK_AT_AGE = 3600.0
"""Seconds between two looks at the age of the files."""
_log = logging.getLogger("lockkit.journal")


class Place(NamedTuple):
    """Where a journal is written.

    Attributes:
        path: The file; renamed files stand beside it.
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

    In the shared folder of a store of all users of a host, each user has a file of their own that the group may read. Otherwise the file
    is the user's alone, in the folder ``journal`` of the state folder, unless the configuration names another folder.

    Raises:
        ConfigError, BackendUnavailable: The state folder cannot be used.
    """
    scheme, _, path = config.url.partition(":")
    if config.journal_folder is None and scope == "host" and scheme == "sqlite" and path.startswith("/"):
        return Place(Path(path.partition("?")[0]).parent / f"events-{this_process().user}.jsonl", 0o640)
    if config.journal_folder is not None:
        return Place(Path(config.journal_folder).expanduser() / FILE, 0o600)
    return Place(config.state_place().path / "journal" / FILE, 0o600)


def _store(config: Config) -> str:
    shown = redact(config.url.partition("?")[0])
    return f"{shown}{config.state_place(create=False)}" if shown == "sqlite:" else shown


class EventJournal:
    """The journal of one client. Safe in threads and in forked children.

    Raises:
        ConfigError, BackendUnavailable: The state folder cannot be used.
    """

    def __init__(self, config: Config, scope: Scope, owner: Owner) -> None:
        self._place = place_of(config, scope)
        self._about = Journaled(_store(config), scope, config.namespace)
        self._size = max(config.journal_max_size, 1) << 20
        self._keep = config.journal_keep
        self._age = config.journal_max_age
        self._task = owner.task
        self._writing = _Writing(owner)

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
        if writing.pid != os.getpid():
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
            writing.count += 1
            head = {"v": VERSION, "writer": writing.name, "n": writing.count}
            text = json.dumps(head | kept | ({"data": told} if told else {}), default=str)
            if len(text) > _LONGEST:
                text = json.dumps(head | kept, default=str)
            try:
                append(
                    self._place.path,
                    text,
                    rotate_at=self._size,
                    keep=self._keep,
                    sync=False,
                    mode=self._place.mode,
                    now=self._is_old(writing),
                )
            except OSError as error:
                # The number of the line stays free, which readers see as a gap.
                if not writing.failed:
                    _log.error(
                        "cannot write the event journal %s: %s; what happens now will be missing in it",
                        printable(str(self._place.path)),
                        error,
                    )
                writing.failed = True
            else:
                writing.failed = False

    def _is_old(self, writing: _Writing) -> bool:
        """Whether the file is to be renamed for its age; files that are too old are removed. Looked at once an hour."""
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
    """The state of a journal in one process."""

    def __init__(self, owner: Owner) -> None:
        self.pid = os.getpid()
        self.owner = owner
        self.name = os.urandom(6).hex()
        self.count = 0
        self.looked = 0.0
        self.failed = False
        self.mutex = threading.Lock()


def _first(path: Path, now: float) -> float:
    """The time of the first line of a file; now if that cannot be told."""
    try:
        with regular(path) as opened:
            for line in opened.read(2 * _LONGEST).splitlines()[:3]:
                if line.strip():
                    return float(json.loads(line)["at"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    return now
