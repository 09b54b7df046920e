"""The journals: lines of JSON, fsynced, readable by their owner only, rotated.

The journal of critical failures has one line for each release that got no definite answer, and one for each resolution. The journal of
recovery has one for each action that is begun, with all that was seen, and one for its outcome. They contain no secrets. A reader skips a
line that a crash left incomplete.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

from lockkit.places import make_folders

__all__ = ["ACTIONS", "FILE", "append", "read", "resolve"]

FILE = "failures.jsonl"
"""The journal of critical failures."""
ACTIONS = "recovery.jsonl"
"""The journal of recovery."""
_ROTATE_AT = 10 * 1024 * 1024
"""The size in bytes from which a file is renamed to ``failures.jsonl.1``, for instance; an earlier file of that name is lost."""


def append(state_dir: str | os.PathLike[str], record: Mapping[str, object], *, file: str = FILE) -> str:
    """Write a record to stable storage, by default a critical failure. Returns its id.

    Raises:
        OSError: The record could not be written.
    """
    identity = os.urandom(4).hex()
    _write(Path(state_dir), {"id": identity, "at": _now(), **record}, file)
    return identity


def resolve(state_dir: str | os.PathLike[str], identity: str, by: str) -> bool:
    """Record that somebody dealt with a failure. Returns False if there is no record with that id.

    Raises:
        OSError: The journal could not be written.
    """
    if not any(record.get("id") == identity for record in read(state_dir)):
        return False
    _write(Path(state_dir), {"resolves": identity, "at": _now(), "by": by}, FILE)
    return True


def read(state_dir: str | os.PathLike[str], *, file: str = FILE) -> list[dict[str, object]]:
    """Every record, oldest first. Resolved ones have ``resolved`` (the time) and ``resolved_by``."""
    records: dict[str, dict[str, object]] = {}
    for name in (f"{file}.1", file):
        for line in _lines(Path(state_dir, name)):
            resolved = line.get("resolves")
            if isinstance(resolved, str):
                if resolved in records:
                    records[resolved] |= {"resolved": line.get("at"), "resolved_by": line.get("by")}
            elif isinstance(line.get("id"), str):
                records[str(line["id"])] = line
    return list(records.values())


def _now() -> str:
    """The time in UTC, as ISO 8601 writes it. The module datetime takes a millisecond to import, at every start."""
    seconds, millis = divmod(time.time_ns() // 1_000_000, 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{millis:03d}+00:00"


def _lines(path: Path) -> list[dict[str, object]]:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    found = []
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def _write(folder: Path, line: Mapping[str, object], file: str) -> None:
    make_folders(folder)
    path = folder / file
    handle = _opened(path)
    try:
        if os.fstat(handle).st_size >= _ROTATE_AT and _moved(path, handle):
            handle, full = _opened(path), handle
            os.close(full)
        # One write: lines of several processes never mix. It begins with a newline in case a crash cut the last line.
        os.write(handle, f"\n{json.dumps(line, default=str)}\n".encode())
        os.fsync(handle)
    finally:
        os.close(handle)


def _opened(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _moved(path: Path, handle: int) -> bool:
    """Rename a full journal, unless another process does so or has done so, because a second renaming would replace the first file.

    This never waits for the lock on the file. Without the lock the record goes into the full file, which readers find under either name.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mine, there = os.fstat(handle), path.stat()
    except OSError:
        return False
    if (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino):
        path.replace(path.with_name(f"{path.name}.1"))
    return True
