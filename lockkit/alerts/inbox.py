"""The inbox of the engine: a plugin, and a file for other processes. Never waits; drops what does not fit."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from lockkit.alerts.happenings import Happening, of_alert, of_event
from lockkit.config.places import make_folders
from lockkit.facts import Alert, Event, Finding
from lockkit.hooks import hookimpl

__all__ = ["Inbox", "hand_over", "handed_over"]

_QUEUE = 10_000
"""Happenings that may wait for the next step."""
_LARGEST = 8 * 1024 * 1024
"""Bytes that the file may have."""
_FILE = "handed-over.jsonl"


class Inbox:
    """A plugin for ``connect(plugins=[inbox])``. Its hooks only queue.

    Attributes:
        dropped: The number of happenings that did not fit.
        findings: Returns the faults of the channels over which alerts are sent.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self.findings: Callable[[], list[Finding]] = list
        self._queue: deque[Happening] = deque()

    @hookimpl
    def lockkit_event(self, event: Event) -> None:
        """Queue an event."""
        self._put(of_event(event))

    @hookimpl
    def lockkit_alert(self, alert: Alert) -> None:
        """Queue an alert."""
        self._put(of_alert(alert))

    @hookimpl
    def lockkit_health(self) -> list[Finding]:
        """Report the faults of the channels."""
        return self.findings()

    def _put(self, happening: Happening) -> None:
        if len(self._queue) >= _QUEUE:
            self.dropped += 1
        else:
            self._queue.append(happening)

    def take(self) -> list[Happening]:
        """Everything that came since the last call, in order."""
        taken = list[Happening]()
        with contextlib.suppress(IndexError):  # another thread takes, too
            taken.extend(self._queue.popleft() for _ in range(len(self._queue)))
        return taken

    def put_back(self, happenings: Sequence[Happening]) -> None:
        """Put taken happenings back at the front of the queue. If it is full, the newest are dropped."""
        self._queue.extendleft(reversed(happenings))
        while len(self._queue) > _QUEUE:
            self._queue.pop()
            self.dropped += 1


def hand_over(folder: Path, happenings: Iterable[Happening]) -> int:
    """Leave happenings for the process that runs the engine. Returns the number of those that did not fit.

    Raises:
        BlockingIOError: Another process uses the file now.
        OSError: The file could not be written; nothing was added to it.
    """
    lines = [msgspec.json.encode(one) + b"\n" for one in happenings]
    if not lines:
        return 0
    make_folders(folder)
    handle = _opened(folder)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The newline is for a line before, that a crash has cut.
        size, text, dropped = os.fstat(handle).st_size, bytearray(b"\n"), 0
        for line in lines:
            if size + len(text) + len(line) > _LARGEST:
                dropped += 1
            else:
                text += line
        if os.write(handle, text) < len(text):
            os.ftruncate(handle, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / _FILE))
    finally:
        os.close(handle)
    return dropped


def handed_over(folder: Path) -> list[Happening]:
    """Take what other processes have left. A line that is damaged is left out.

    Raises:
        BlockingIOError: Another process uses the file now.
        OSError: The file could not be read.
    """
    if not (folder / _FILE).exists():
        return []
    handle = _opened(folder)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        text = os.pread(handle, _LARGEST, 0)
        os.ftruncate(handle, 0)
    finally:
        os.close(handle)
    found = []
    for line in text.splitlines():
        try:
            found.append(_happening(msgspec.json.decode(line)))
        except (msgspec.DecodeError, TypeError, ValueError):
            continue
    return found


def _happening(fields: object) -> Happening:
    class Form(msgspec.Struct, array_like=True):
        source: str
        labels: dict[str, str]
        message: str
        number: int
        severity: str | None

    made = msgspec.convert(fields, Form)
    severity = made.severity
    if severity not in ("P0", "P1", "P2", None):
        raise ValueError(severity)
    return Happening(made.source, made.labels, made.message, made.number, severity)  # type: ignore[arg-type]  # just checked


def _opened(folder: Path) -> int:
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(folder / _FILE, flags, 0o600)
