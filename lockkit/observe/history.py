"""The past, read from event journals: for ``lockkit history``, ``audit`` and ``report``, and for programs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from lockkit.observe.appending import absent, opened, rotated
from lockkit.observe.assembling import Assembly, Read
from lockkit.observe.journal_rows import row_of
from lockkit.observe.past import History

if TYPE_CHECKING:
    from lockkit.config.config import Config

__all__ = ["journals", "read_history"]


def journals(config: Config) -> list[Path]:
    """The event journals of this host: this user's, and those of all users in a shared folder."""
    from lockkit.observe.event_journal import place_of

    mine = place_of(config, "user").path
    shared = place_of(config, "host").path
    found = dict.fromkeys((mine, shared))
    found |= dict.fromkeys(sorted(shared.parent.glob("events-*.jsonl"))) if shared != mine else {}
    return [path for path in found if path.exists() or rotated(path)]


def read_history(
    files: Iterable[str | os.PathLike[str]] = (),
    *,
    config: Config | None = None,
    name: str | None = None,
    since: float | None = None,
) -> History:
    """Read event journals.

    Args:
        files: The files, of one host or many; of a folder ``*.jsonl`` and ``*.jsonl.N``. None: ``config``'s.
        config: The configuration that names the journal; None for this process's. Unused with ``files``.
        name: Only this lock.
        since: Seconds since the epoch; only what was not over by then.

    Raises:
        ConfigError, BackendUnavailable: The configuration is wrong, or its state folder cannot be used.
    """
    paths = [path for each in files for path in _of(Path(each))]
    if not paths:
        if config is None:
            from lockkit.config.config import load

            config = load()
        paths = journals(config)
    reading = _Reading(Assembly(name, since))
    for path in dict.fromkeys(paths):
        reading.read(path)
    return reading.past.history(Read(reading.torn, tuple(reading.files), tuple(reading.unreadable)))


def _of(path: Path) -> list[Path]:
    """The files of an argument; a folder has many."""
    if not path.is_dir():
        return [path]
    return sorted(each for each in path.iterdir() if each.name.startswith("events") and ".jsonl" in each.name)


class _Reading:
    """The reading of all files, row by row."""

    def __init__(self, past: Assembly) -> None:
        self.past = past
        self.unreadable: list[str] = []
        self.files: list[str] = []
        self.torn = 0
        self._seen: set[tuple[int, int]] = set()

    def read(self, path: Path) -> None:
        """Read a file and its renamed predecessors; faults in them are counted."""
        try:
            found = opened(path)
            missing = absent(path)
            for each in found:
                with each:
                    seen = os.fstat(each.fileno())
                    if (seen.st_dev, seen.st_ino) not in self._seen:
                        self._seen.add((seen.st_dev, seen.st_ino))
                        self._take(each)
                        self.files.append(each.name)
            # A second look, because a number is free for a moment while files are renamed.
            if missing and (still := [each for each in absent(path) if each in missing]):
                self.unreadable.append(f"{still[0]}: it is missing, and there are older ones")
        except OSError as error:
            self.unreadable.append(f"{path}: {error.strerror}")

    def _take(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            if not line.isspace():
                row = row_of(line)
                if row is None:
                    self.torn += 1
                else:
                    self.past.take(row)
