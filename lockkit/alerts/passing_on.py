"""Passing on notifications: from the engine's process to others of the same user, host and store.

Each process locks a file for each of its channels, and takes what others left in the folder beside it. There
a notification is a file until it is taken, so a process that dies in between only delays it.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path

from lockkit.alerts.notification import Notification, keyed
from lockkit.alerts.spool import decoded, encoded
from lockkit.config.places import make_folders
from lockkit.lib.printable import printable

__all__ = ["PassingOn"]

_log = logging.getLogger("lockkit.alerts")
_FOLDER = "channels"
_MOST = 2000
"""Notifications that may wait for the process of a channel."""
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class PassingOn:
    """The channels of one process that shares an engine. No method raises for a file. Not thread-safe.

    Args:
        folder: The folder of the alerts.
        own: The channels of this process, by keys that are equal in two processes only for the same channel.
    """

    def __init__(self, folder: Path, own: Mapping[str, Callable[[Notification], object]]) -> None:
        self._folder = folder / _FOLDER
        self._own = own
        self._locks: dict[str, int] = {}
        self._waiting: list[tuple[str, Notification]] = []
        self._numbers = count()
        self._said = ""

    def others(self) -> list[str]:
        """The channels that only other processes have which live."""
        try:
            names = sorted(path.stem for path in self._folder.glob("*.lock"))
            return [name for name in names if name not in self._own and self._is_held(name)]
        except OSError as error:
            self._say(error)
            return []

    def leave(self, notification: Notification) -> None:
        """Leave a notification for each channel that only others have; :meth:`take` retries failed writes."""
        self._waiting += [(name, notification) for name in self.others()]
        self._write()

    def take(self, hand: Callable[[Callable[[Notification], object], Notification], object]) -> None:
        """Hand over, in order, what others have left for channels of this process, with its channel."""
        self._write()
        try:
            for name, channel in self._own.items():
                if self._is_own(name):
                    for path in sorted((self._folder / name).glob("*.json")):
                        if (one := _read(path)) is not None:
                            hand(channel, one)
                        path.unlink()  # only now: it must come again if this process is ended before
        except OSError as error:
            self._say(error)

    def close(self) -> None:
        """Give the channels up."""
        for handle in self._locks.values():
            os.close(handle)
        self._locks.clear()

    def _is_own(self, name: str) -> bool:
        """Whether this process takes what is left for its channel ``name``, from now on if no other does."""
        if name not in self._locks:
            make_folders(self._folder / name)
            handle = os.open(self._folder / f"{name}.lock", _FLAGS, 0o600)
            if not _locked(handle, fcntl.LOCK_EX):
                os.close(handle)
                return False
            self._locks[name] = handle
        return True

    def _is_held(self, name: str) -> bool:
        handle = os.open(self._folder / f"{name}.lock", _FLAGS, 0o600)
        try:
            return not _locked(handle, fcntl.LOCK_SH)
        finally:
            os.close(handle)

    def _write(self) -> None:
        waiting, self._waiting = self._waiting[-_MOST:], []
        for number, (name, notification) in enumerate(waiting):
            folder = self._folder / name
            try:
                if len(list(folder.glob("*.json"))) >= _MOST:
                    self._say(f"{_MOST} wait for the process with channel {name} already")
                    continue
                path = folder / f"{time.time_ns():020}-{os.getpid()}-{next(self._numbers)}.new"
                handle = os.open(path, _FLAGS | os.O_EXCL, 0o600)
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump(encoded(keyed(notification)), file)
                    file.flush()
                    os.fsync(handle)
                path.replace(path.with_suffix(".json"))
            except OSError as error:
                self._say(error)
                self._waiting = waiting[number:]
                return

    def _say(self, what: object) -> None:
        if self._said != str(what):
            self._said = str(what)
            _log.error("alerts are not passed on to another process: %s", printable(self._said))


def _locked(handle: int, how: int) -> bool:
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(path: Path) -> Notification | None:
    """A notification that was left; None if its file is damaged."""
    try:
        return decoded(json.loads(path.read_bytes()))
    except ValueError:
        return None
