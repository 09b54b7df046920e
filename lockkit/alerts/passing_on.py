"""Passing on notifications: from the process with the alert engine to processes that have other channels.

The processes belong to one user, on one host, with one store. Each holds a file lock for each of its
channels. Beside the lock file is a folder, in which other processes leave notifications for the channel: one
file each, which is removed when its notification has been handed to the channel. So a process that dies
delays a notification, and loses none.
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
_LIMIT = 2000
"""The notifications that may wait for the process with a channel."""
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class PassingOn:
    """The channels of one process, and of those with which it shares an engine. Not thread-safe.

    Trouble with the files is logged, and not raised.

    Args:
        folder: The folder of the alerts.
        own: The channels of this process, by name. Two processes give one channel the same name, and
            different channels different names.
    """

    def __init__(self, folder: Path, own: Mapping[str, Callable[[Notification], object]]) -> None:
        self._folder = folder / _FOLDER
        self._own = own
        self._locks: dict[str, int] = {}
        self._waiting: list[tuple[str, Notification]] = []
        self._numbers = count()
        self._said = ""

    def others(self) -> list[str]:
        """The names of the channels that another live process has and this one has not."""
        try:
            names = sorted(path.stem for path in self._folder.glob("*.lock"))
            return [name for name in names if name not in self._own and self._is_held(name)]
        except OSError as error:
            self._log_once(error)
            return []

    def leave(self, notification: Notification) -> None:
        """Leave a notification for each channel of others. The next :meth:`take` repeats failed writes."""
        self._waiting += [(name, notification) for name in self.others()]
        self._write()

    def take(self, deliver: Callable[[Callable[[Notification], object], Notification], object]) -> None:
        """Call ``deliver(channel, notification)`` for what others have left for this process, in order."""
        self._write()
        try:
            for name, channel in self._own.items():
                if self._claim_channel(name):
                    for path in sorted((self._folder / name).glob("*.json")):
                        if (one := _read(path)) is not None:
                            deliver(channel, one)
                        path.unlink()  # only now: it must come again if this process is ended before
        except OSError as error:
            self._log_once(error)

    def close(self) -> None:
        """Let another process have the channels of this one."""
        for handle in self._locks.values():
            os.close(handle)
        self._locks.clear()

    def _claim_channel(self, name: str) -> bool:
        """Whether this process has the lock of one of its channels, or gets it now."""
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
        waiting, self._waiting = self._waiting[-_LIMIT:], []
        for number, (name, notification) in enumerate(waiting):
            folder = self._folder / name
            try:
                if len(list(folder.glob("*.json"))) >= _LIMIT:
                    self._log_once(f"{_LIMIT} wait for the process with channel {name} already")
                    continue
                _save(folder / f"{time.time_ns():020}-{os.getpid()}-{next(self._numbers)}.new", notification)
            except OSError as error:
                self._log_once(error)
                self._waiting = waiting[number:]
                return

    def _log_once(self, what: object) -> None:
        if self._said != str(what):
            self._said = str(what)
            _log.error("alerts are not passed on to another process: %s", printable(self._said))


def _locked(handle: int, how: int) -> bool:
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _save(path: Path, notification: Notification) -> None:
    """Write a notification to a new file, and give it the suffix ``.json`` when it is complete."""
    handle = os.open(path, _FLAGS | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(encoded(keyed(notification)), file)
            file.flush()
            os.fsync(handle)
        path.replace(path.with_suffix(".json"))
    except BaseException:
        path.unlink(missing_ok=True)  # the disk is full
        raise


def _read(path: Path) -> Notification | None:
    try:
        return decoded(json.loads(path.read_bytes()))
    except (ValueError, RecursionError) as error:
        _log.error("a notification was lost, %s is damaged: %s", printable(str(path)), printable(str(error)))
        return None
