"""The output of commands: JSON documents for programs, plain sentences and tables for people.

Every document names its schema. Times are given twice: RFC 3339 in UTC, and seconds since the epoch. Missing values are null, and
claims are shown by claim id, never by token.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal, TextIO

from lockkit.errors import LockkitError
from lockkit.printable import printable

if TYPE_CHECKING:
    from pathlib import Path

    from lockkit.cli import documents, parts
    from lockkit.client import Client
    from lockkit.facts import (
        ClaimInfo,
        Drain,
        Finding,
        LockInfo,
        Owner,
        Record,
        ReleaseReport,
        ReleaseRequest,
    )
    from lockkit.lease import Lease

__all__ = [
    "claim",
    "clock_time",
    "colour",
    "findings",
    "lock",
    "lock_state",
    "notice",
    "owner",
    "record",
    "release",
    "release_request",
    "rfc3339",
    "run_leases",
    "say",
    "store",
    "store_folder",
    "store_words",
    "write_json",
]


def write_json(document: documents.Document, *, stream: TextIO | None = None, indent: bool = False) -> None:
    """Write one document, in one line or, on a terminal and with ``indent``, in several.

    A document on stderr, where other processes write too, is one row (:mod:`lockkit.cli.rows`).
    """
    import json

    from lockkit.cli import rows
    from lockkit.cli.documents import plain

    stream = sys.stdout if stream is None else stream
    if stream is sys.stderr:
        made = rows.document(plain(document), stream)
    else:
        made = json.dumps(plain(document), indent=2 if indent and stream.isatty() else None)
    stream.write(f"{made}\n")
    stream.flush()


def say(text: str, *, head: str = "", stream: TextIO | None = None) -> None:
    """Write a text for people. Characters that do not print are escaped, because names and errors come from outside.

    Args:
        text: One line or more, without the last newline.
        head: A text to write before it unescaped, for instance a coloured word.
        stream: The stream; None: standard output. Standard error is flushed.
    """
    stream = sys.stdout if stream is None else stream
    stream.write(f"{head}{printable(text, lines=True)}\n")
    if stream is sys.stderr:
        stream.flush()


def rfc3339(at: float) -> str:
    """A time since the epoch as ``2030-01-31T12:00:00.250Z``."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clock_time(at: float, now: float) -> str:
    """A time for people, in their own time zone: ``14:03:59``, with the date if it is not today."""
    import time

    then, today = time.localtime(at), time.localtime(now)
    return time.strftime("%H:%M:%S" if then[:3] == today[:3] else "%Y-%m-%d %H:%M:%S", then)


def notice(sentence: str, *, name: str, as_json: bool) -> None:
    """Write one sentence about a lock to stderr, in addition to the command's result."""
    if as_json:
        from lockkit.cli import documents

        write_json(documents.Notice(name=name, message=sentence), stream=sys.stderr)
    else:
        say(f"lockkit: {sentence}", stream=sys.stderr)


def colour(stream: TextIO | None = None) -> bool:
    """Whether to use colours and live lines: on a terminal that is not dumb, without NO_COLOR."""
    stream = sys.stdout if stream is None else stream
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def store(client: Client) -> parts.Store:
    """The store of a client: its URL, where the URL was set, and the namespace."""
    from lockkit.cli import parts

    return parts.Store(url=_located(client), source=client.url_source, namespace=client.namespace)


def store_words(client: Client) -> str:
    """The store for people: ``store: sqlite:/home/ann/.local/state/lockkit/lockkit.db (from default)``."""
    return f"store: {_located(client)} (from {client.url_source})"


def _located(client: Client) -> str:
    """The store's URL, secrets redacted, with the file of the embedded store even if the URL does not name it."""
    head, mark, options = client.url.partition("?")
    if head == "sqlite:":
        from urllib.parse import quote

        try:
            file = client.config.state_place().path / "lockkit.db"
        except LockkitError:
            return client.url
        head = f"sqlite:{quote(os.fsencode(file))}"
    return head + mark + options


def store_folder(client: Client) -> Path | None:
    """The folder of the embedded store's file; None for another store."""
    scheme, _, path = _located(client).partition("?")[0].partition(":")
    if scheme != "sqlite" or not path:
        return None
    from pathlib import Path
    from urllib.parse import unquote

    return Path(unquote(path)).parent


def owner(who: Owner) -> parts.Owner:
    """The owner of a claim."""
    from lockkit.cli import parts

    return parts.Owner(
        user=who.user,
        host=who.host,
        pid=who.pid,
        boot_id=who.boot_id,
        program=who.program,
        pod=who.pod,
        task=who.task,
        version=who.version,
    )


def claim(info: ClaimInfo) -> parts.Claim:
    """One claim of a queue."""
    from lockkit.cli import parts

    return parts.Claim(
        name=info.name,
        claim_id=info.claim_id,
        state=info.state,
        kind=info.kind,
        position=info.position,
        weight=info.weight,
        capacity=info.capacity,
        fence=info.fence,
        owner=owner(info.owner),
        since=rfc3339(info.since),
        since_seconds=info.since,
        renewed=rfc3339(info.renewed) if info.renewed else None,
        renewed_seconds=info.renewed or None,
        deadline=None if info.deadline is None else rfc3339(info.deadline),
        deadline_seconds=info.deadline,
        ttl_seconds=info.ttl,
        process_bound=info.process_bound,
        evicted=info.evicted,
        alive=info.alive,
        evidence=info.evidence,
        note=dict(info.note),
        process=info.process,
        kept_by=[parts.Keeper(pid=each.pid, program=each.program) for each in info.kept_by],
        reason=info.reason,
        progress=_progress(info),
        release_requests=[release_request(info.name, each) for each in info.release_requests],
    )


def _progress(info: ClaimInfo) -> parts.Progress | None:
    """The last news of a holder."""
    from lockkit.cli import parts

    told = info.progress
    if told is None:
        return None
    return parts.Progress(done=told.done, message=told.message, at=rfc3339(told.at), at_seconds=told.at)


def release_request(name: str, request: ReleaseRequest) -> parts.ReleaseRequest:
    """A request to the holder of a lock to release it."""
    from lockkit.cli import parts

    return parts.ReleaseRequest(
        name=name, by=request.by, reason=request.reason, at=rfc3339(request.at), at_seconds=request.at
    )


def lock_state(info: LockInfo) -> Literal["held", "lingering", "waiting", "free"]:
    """The state of a lock in one word: held, lingering (ended, still blocking), waiting (between two holders), or free."""
    states = {one.state for one in info.claims}
    if "HELD" in states:
        return "held"
    if "LINGERING" in states:
        return "lingering"
    return "waiting" if states else "free"


def lock(info: LockInfo) -> parts.Lock:
    """The queue of one name."""
    from lockkit.cli import parts

    return parts.Lock(
        name=info.name,
        state=lock_state(info),
        capacity=info.capacity,
        available=info.available,
        holders=[claim(one) for one in info.holders],
        waiters=[claim(one) for one in info.waiters],
        read_at=rfc3339(info.read_at),
        read_at_seconds=info.read_at,
    )


def drain(mark: Drain) -> parts.Drain:
    """The mark of a drained namespace."""
    from lockkit.cli import parts

    return parts.Drain(
        namespace=mark.namespace,
        reason=mark.reason,
        owner=owner(mark.owner),
        since=rfc3339(mark.since),
        since_seconds=mark.since,
        partial=mark.partial,
    )


def record(of_name: Record) -> parts.NameRecord:
    """The record of one name."""
    from lockkit.cli import parts

    return parts.NameRecord(
        value=dict(of_name.value),
        version=of_name.version,
        written=rfc3339(of_name.written),
        written_seconds=of_name.written,
    )


def findings(found: Sequence[Finding]) -> list[parts.Finding]:
    """Convert findings, each with what to do about it."""
    from lockkit.cli import parts

    return [
        parts.Finding(check=one.check, severity=one.severity, message=one.message, hint=one.hint or None)
        for one in found
    ]


def release(report: ReleaseReport) -> parts.Released:
    """The result of a release, layer by layer."""
    from lockkit.cli import parts

    return parts.Released(
        outcome=report.outcome,
        reason=report.reason,
        expires_by=None if report.expires_by is None else rfc3339(report.expires_by),
        expires_by_seconds=report.expires_by,
        layers=[
            parts.Layer(
                layer=layer.layer,
                outcome=layer.outcome,
                duration_seconds=layer.duration,
                error=layer.error,
                hooks=[
                    parts.Hook(
                        plugin=hook.plugin,
                        outcome=hook.outcome,
                        duration_seconds=hook.duration,
                        error=hook.error,
                    )
                    for hook in layer.hooks
                ],
            )
            for layer in report.layers
        ],
    )


def run_leases(leases: Iterable[Lease]) -> list[parts.RunLease]:
    """Each lock with its release, as far as there is one."""
    from lockkit.cli import parts
    from lockkit.members import in_pool

    return [
        parts.RunLease(
            name=lease.name,
            member=found[1] if (found := in_pool(lease.name)) is not None else None,
            claim_id=lease.claim_id,
            fence=lease.fence,
            release=None if lease.report is None else release(lease.report),
        )
        for lease in leases
    ]
