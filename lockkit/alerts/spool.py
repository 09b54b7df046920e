"""The spool of a channel: its undelivered notifications, in a file of JSON lines for the owner alone.

A line is a notification with its number, or the numbers of delivered ones; one that a crash cut is skipped.
Each process has its own file, locked by ``NAME.lock``; the next one to open the spool takes over the rest.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from itertools import takewhile
from pathlib import Path

from lockkit.alerts.notification import Member, Notification
from lockkit.alerts.sharing import Told, remember
from lockkit.config.places import private_dir
from lockkit.lib.namedtuples import NamedTuple

__all__ = ["Kept", "Spool", "decoded", "encoded", "waiting"]

_MOST_PROCESSES = 16
_REWRITE = 65_536
"""The size in bytes from which a file is rewritten once more than half of it is done."""
_MOST_LINE = 1 << 20
"""The longest line in bytes."""
_NOTIFICATION = Notification._fields[:-1]
"""All but the origin, which is in the group by then."""
_MEMBER = Member._fields


class Kept(NamedTuple):
    """A notification in the spool, with its number, which rises, and the size of its line in bytes."""

    number: int
    notification: Notification
    size: int


class Spool:
    """The file of one channel. Not thread-safe.

    Opening never waits. If the disk fails, methods raise OSError, and the caller uses memory instead.

    Args:
        folder: The folder, created for its owner alone (0700).
        name: The name of the channel.

    Attributes:
        found: The notifications that earlier processes left, oldest first.
        sent: The times of the last messages, in seconds of the wall clock.
        told: The alerts that were sent to the channel; updated by the caller, and restored by a new process.
        damaged: The number of lines that could not be read.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = private_dir(folder)
        self.damaged = 0
        self.sent: list[float] = []
        self.told: Told = {}
        self._number = 0
        self._done_bytes = 0
        self._pending: dict[int, str] = {}
        self._lock, self.path = self._own(name)
        try:
            self._handle = self._open()
            self.found = self._take_over(name)
        except BaseException:
            os.close(self._lock)
            raise

    def add(self, notification: Notification) -> Kept:
        """Write a notification to stable storage.

        Raises:
            OSError: The disk is full, or fails.
        """
        kept = self._kept(notification)
        try:
            self._write(self._pending[kept.number], sync=True)
        except OSError:
            del self._pending[kept.number]
            raise
        return kept

    def done(self, numbers: Iterable[int], at: float | None) -> None:
        """Note that notifications need no more attempts. No sync: after a crash they may be sent again.

        Args:
            numbers: The numbers of the notifications.
            at: The time at which a message was sent, in seconds of the wall clock; None if none was.
        """
        gone = [number for number in numbers if number in self._pending]
        self._done_bytes += sum(len(self._pending.pop(number)) + 2 for number in gone)
        if at is not None:
            self.sent = [*self.sent[-1000:], at]
        self._write(json.dumps({"done": gone, "at": at}), sync=False)
        size = os.fstat(self._handle).st_size
        if size >= _REWRITE and self._done_bytes * 2 >= size:
            self._rewrite()

    def close(self) -> None:
        """Close the files and give back the lock. Pending notifications stay in the file."""
        os.close(self._handle)
        os.close(self._lock)

    def _own(self, name: str) -> tuple[int, Path]:
        for slot in range(_MOST_PROCESSES):
            lock = self._locked(_stem(name, slot))
            if lock is not None:
                return lock, self.folder / f"{_stem(name, slot)}.jsonl"
        raise OSError(f"{_MOST_PROCESSES} processes use the spool of {name} already")

    def _locked(self, stem: str) -> int | None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        lock = os.open(self.folder / f"{stem}.lock", flags, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        return lock

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(self.path, flags, 0o600)

    def _take_over(self, name: str) -> list[Kept]:
        """Read this file and those that no process uses any more, into one new file."""
        left = list(self._read(self.path))
        with contextlib.ExitStack() as others:
            used: list[Path] = []
            for slot in range(_MOST_PROCESSES):
                path = self.folder / f"{_stem(name, slot)}.jsonl"
                if path == self.path or not path.exists():
                    continue
                lock = self._locked(_stem(name, slot))
                if lock is not None:
                    others.callback(os.close, lock)
                    left += self._read(path)
                    used.append(path)
            left.sort(key=lambda notification: notification.at)
            found = [self._kept(notification) for notification in left]
            self._rewrite()
            for path in used:
                path.unlink()
        return found

    def _read(self, path: Path) -> Iterator[Notification]:
        pending: dict[int, Notification] = {}
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return
        for line in text.splitlines():
            try:
                value = json.loads(line) if line else {}
                if "notification" in value:
                    pending[value["number"]] = decoded(value["notification"])
                    remember(self.told, pending[value["number"]])
                for group, known in value.get("told", {}).items():
                    self.told.setdefault(group, set()).update(known)
                for number in value.get("done", ()):
                    pending.pop(number, None)
                self.sent += [float(at) for at in value.get("sent", ())]
                if value.get("at") is not None:
                    self.sent.append(float(value["at"]))
            except (ValueError, TypeError, KeyError, AttributeError):
                self.damaged += 1
        self.sent = sorted(self.sent)[-1000:]
        yield from pending.values()

    def _kept(self, notification: Notification) -> Kept:
        self._number += 1
        line = json.dumps({"number": self._number, "notification": encoded(notification)})
        if len(line) > _MOST_LINE:
            raise OSError(f"a notification of {len(line)} bytes is too large for the spool")
        self._pending[self._number] = line
        return Kept(self._number, notification, len(line))

    def _write(self, line: str, *, sync: bool) -> None:
        # A newline at both ends, in case a crash cut the line before.
        content = f"\n{line}\n".encode()
        if os.write(self._handle, content) < len(content):
            raise OSError("the disk is full")
        if sync:
            os.fsync(self._handle)

    def _rewrite(self) -> None:
        """Replace the file by one with the pending lines. A crash leaves the old file or the new one."""
        fresh = self.path.with_suffix(".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        told = {group: sorted(known) for group, known in self.told.items()}
        lines = [json.dumps({"sent": self.sent[-1000:], "told": told}), *self._pending.values()]
        with os.fdopen(os.open(fresh, flags, 0o600), "wb") as file:
            file.write("".join(f"\n{line}\n" for line in lines).encode())
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path)
        opened, self._handle = self._handle, self._open()
        os.close(opened)
        self._done_bytes = 0


def _stem(name: str, slot: int) -> str:
    # No name of a channel contains a dot.
    return f"{name}.{slot}" if slot else name


def waiting(folder: Path, name: str) -> list[float]:
    """The times of a channel's waiting notifications, oldest first, while other processes may write."""
    found: dict[tuple[int, int], float] = {}
    for slot in range(_MOST_PROCESSES):
        with contextlib.suppress(OSError):
            for line in (folder / f"{_stem(name, slot)}.jsonl").read_bytes().splitlines():
                with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
                    value = json.loads(line)
                    if "notification" in value:
                        found[slot, value["number"]] = float(value["notification"]["at"])
                    for number in value.get("done", ()):
                        found.pop((slot, number), None)
    return sorted(found.values())


def encoded(notification: Notification) -> dict[str, object]:
    """A notification as JSON has it."""
    return {
        **notification._asdict(),
        "members": [{**member._asdict(), "labels": dict(member.labels)} for member in notification.members],
    }


def decoded(value: object) -> Notification:
    """A notification from JSON. Unknown keys, of a later version, are ignored; new ones may be missing.

    Raises:
        ValueError: The value is none.
    """
    import msgspec

    fields = _ordered(value, _NOTIFICATION)
    if isinstance(value, dict) and isinstance(value.get("members"), list):
        fields[_NOTIFICATION.index("members")] = [_ordered(member, _MEMBER) for member in value["members"]]
    try:
        return msgspec.convert(fields, Notification)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None


def _ordered(value: object, fields: tuple[str, ...]) -> list[object]:
    if not isinstance(value, dict):
        raise ValueError("not a table")  # noqa: TRY004 (what json raises for a broken line, too)
    return [value[key] for key in takewhile(value.__contains__, fields)]  # an earlier version had fewer
