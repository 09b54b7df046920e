"""The journal of critical failures: fsynced JSON lines, owner-only, rotated.

One line for each release that got no definite answer, one for each resolution; nothing in it is a secret. A line that a
crash left half-written is passed over when reading.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from lockkit.places import make_folders

__all__ = ["FILE", "append", "read", "resolve"]

FILE = "failures.jsonl"
_ROTATE_AT = 10 * 1024 * 1024
"""Bytes from which the file is moved to ``failures.jsonl.1``; what was there before is dropped."""


def append(state_dir: str | os.PathLike[str], record: Mapping[str, object]) -> str:
    """Write a record to stable storage; returns its id.

    Raises:
        OSError: It could not be written.
    """
    identity = os.urandom(4).hex()
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    _write(Path(state_dir), {"id": identity, "at": at, **record})
    return identity


def resolve(state_dir: str | os.PathLike[str], identity: str, by: str) -> bool:
    """Note that somebody dealt with a record; False if there is none of that id.

    Raises:
        OSError: It could not be written.
    """
    if not any(record.get("id") == identity for record in read(state_dir)):
        return False
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    _write(Path(state_dir), {"resolves": identity, "at": at, "by": by})
    return True


def read(state_dir: str | os.PathLike[str]) -> list[dict[str, object]]:
    """Every record, oldest first; resolved ones have ``resolved`` (when) and ``resolved_by``."""
    records: dict[str, dict[str, object]] = {}
    for name in (f"{FILE}.1", FILE):
        for line in _lines(Path(state_dir, name)):
            resolved = line.get("resolves")
            if isinstance(resolved, str):
                if resolved in records:
                    records[resolved] |= {"resolved": line.get("at"), "resolved_by": line.get("by")}
            elif isinstance(line.get("id"), str):
                records[str(line["id"])] = line
    return list(records.values())


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


def _write(folder: Path, line: Mapping[str, object]) -> None:
    make_folders(folder)
    path = folder / FILE
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
    """Move a full journal out of the way, unless another process does or did so: a second move would drop the first one's file.

    This never waits for the lock. Without it the record goes into the full file, which is found under either name.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mine, there = os.fstat(handle), path.stat()
    except OSError:
        return False
    if (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino):
        path.replace(path.with_name(f"{FILE}.1"))
    return True
