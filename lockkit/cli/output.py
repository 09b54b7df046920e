"""What commands print: JSON documents for programs, plain sentences and tables for people.

Every document names its schema; times are RFC 3339 in UTC and, beside it, seconds since the epoch; lists are always
lists, what is absent is null, and claims are shown by claim id, never by token.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, TextIO

from lockkit.errors import LockkitError
from lockkit.printable import printable

if TYPE_CHECKING:
    from lockkit.client import Client
    from lockkit.facts import ClaimInfo, LockInfo, Owner, ReleaseReport

__all__ = [
    "claim",
    "clock_time",
    "colour",
    "lock",
    "lock_state",
    "notice",
    "owner",
    "release",
    "rfc3339",
    "say",
    "store",
    "store_words",
    "write_json",
]


def write_json(document: Mapping[str, object], *, stream: TextIO | None = None, indent: bool = False) -> None:
    """Write one document: in one line, or indented on a terminal."""
    import json

    stream = sys.stdout if stream is None else stream
    pretty = indent and stream.isatty()
    stream.write(json.dumps(document, indent=2 if pretty else None, default=str) + "\n")
    stream.flush()


def say(text: str, *, head: str = "", stream: TextIO | None = None) -> None:
    """Write a text for people; what does not print is escaped, since names and errors come from elsewhere.

    Args:
        text: One line or more, without the last newline.
        head: What stands before it as it is, for instance a coloured word.
        stream: Where to; None: standard output. Standard error is flushed.
    """
    stream = sys.stdout if stream is None else stream
    stream.write(f"{head}{printable(text, lines=True)}\n")
    if stream is sys.stderr:
        stream.flush()


def rfc3339(at: float | None) -> str | None:
    """A time since the epoch as ``2030-01-31T12:00:00.250Z``."""
    if at is None:
        return None
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clock_time(at: float, now: float) -> str:
    """A time for people, in their own zone: ``14:03:59``, with the date where it isn't today."""
    import time

    then, today = time.localtime(at), time.localtime(now)
    return time.strftime("%H:%M:%S" if then[:3] == today[:3] else "%Y-%m-%d %H:%M:%S", then)


def notice(sentence: str, *, name: str, as_json: bool) -> None:
    """Write one sentence about a lock to stderr, beside the answer of the command."""
    if as_json:
        write_json({"schema": "lockkit.notice/1", "name": name, "message": sentence}, stream=sys.stderr)
    else:
        say(f"lockkit: {sentence}", stream=sys.stderr)


def colour(stream: TextIO | None = None) -> bool:
    """Whether colours and live lines are welcome: a terminal, no NO_COLOR, not a dumb one."""
    stream = sys.stdout if stream is None else stream
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def store(client: Client) -> dict[str, object]:
    """Which store, in which namespace, and where that was stated."""
    return {"url": client.url, "source": client.url_source, "namespace": client.namespace}


def store_words(client: Client) -> str:
    """``store: sqlite:/home/ann/.local/state/lockkit/lockkit.db (from default)``: the file, where the URL leaves it out."""
    url = client.url
    if url == "sqlite:":
        try:
            url = f"sqlite:{client.config.state_place().path / 'lockkit.db'}"
        except LockkitError:
            url = client.url
    return f"store: {url} (from {client.url_source})"


def owner(who: Owner) -> dict[str, object]:
    """Who stands behind a claim."""
    return {
        "user": who.user,
        "host": who.host,
        "pid": who.pid,
        "boot_id": who.boot_id,
        "program": who.program,
        "pod": who.pod,
        "task": who.task,
        "version": who.version,
    }


def claim(info: ClaimInfo) -> dict[str, object]:
    """One claim of a queue."""
    return {
        "name": info.name,
        "claim_id": info.claim_id,
        "state": info.state,
        "kind": info.kind,
        "position": info.position,
        "weight": info.weight,
        "capacity": info.capacity,
        "fence": info.fence,
        "owner": owner(info.owner),
        "since": rfc3339(info.since),
        "since_seconds": info.since,
        "renewed": rfc3339(info.renewed or None),
        "renewed_seconds": info.renewed or None,
        "deadline": rfc3339(info.deadline),
        "deadline_seconds": info.deadline,
        "ttl_seconds": info.ttl,
        "process_bound": info.process_bound,
        "evicted": info.evicted,
        "alive": info.alive,
        "evidence": info.evidence,
        "note": dict(info.note),
    }


def lock_state(info: LockInfo) -> str:
    """One word: held, lingering (over, still blocking), waiting (between two holders), or free."""
    states = {one.state for one in info.claims}
    return next(
        (state.lower() for state in ("HELD", "LINGERING") if state in states), "waiting" if states else "free"
    )


def lock(info: LockInfo) -> dict[str, object]:
    """The queue of one name."""
    return {
        "name": info.name,
        "state": lock_state(info),
        "capacity": info.capacity,
        "holders": [claim(one) for one in info.holders],
        "waiters": [claim(one) for one in info.waiters],
        "read_at": rfc3339(info.read_at),
        "read_at_seconds": info.read_at,
    }


def release(report: ReleaseReport | None) -> dict[str, object] | None:
    """How a release went, layer by layer."""
    if report is None:
        return None
    return {
        "outcome": report.outcome,
        "reason": report.reason,
        "expires_by": rfc3339(report.expires_by),
        "expires_by_seconds": report.expires_by,
        "layers": [
            {
                "layer": layer.layer,
                "outcome": layer.outcome,
                "duration_seconds": layer.duration,
                "error": layer.error,
                "hooks": [
                    {
                        "plugin": hook.plugin,
                        "outcome": hook.outcome,
                        "duration_seconds": hook.duration,
                        "error": hook.error,
                    }
                    for hook in layer.hooks
                ],
            }
            for layer in report.layers
        ],
    }
