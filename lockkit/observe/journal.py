"""The journals: lines of JSON, fsynced, readable by their owner only, rotated.

The journal of critical failures has a line for each release without a definite answer, and for each
resolution; that of recovery for each action that starts, with the facts seen, and for its outcome. They
contain no secrets. Readers skip a line that a crash left incomplete.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

from lockkit.observe.appending import append as append_line
from lockkit.observe.appending import read_records
from lockkit.values.durations import rfc3339

__all__ = ["ACTIONS", "FILE", "append", "read", "resolve"]

FILE = "failures.jsonl"
"""The journal of critical failures."""
ACTIONS = "recovery.jsonl"
"""The journal of recovery."""
_ROTATE_AT = 10 * 1024 * 1024
"""The size in bytes from which a file becomes, say, ``failures.jsonl.1``, replacing an earlier one."""


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
        for line in read_records(Path(state_dir, name)).records:
            resolved = line.get("resolves")
            if isinstance(resolved, str):
                if resolved in records:
                    records[resolved] |= {"resolved": line.get("at"), "resolved_by": line.get("by")}
            elif isinstance(line.get("id"), str):
                records[str(line["id"])] = line
    return list(records.values())


def _now() -> str:
    """The time in UTC, in ISO 8601."""
    return rfc3339(time.time()).replace("Z", "+00:00")


def _write(folder: Path, line: Mapping[str, object], file: str) -> None:
    append_line(folder / file, json.dumps(line, default=str), rotate_at=_ROTATE_AT)
