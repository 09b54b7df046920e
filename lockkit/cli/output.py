"""The output of commands: JSON documents for programs, plain sentences and tables for people.

Every document names its schema. Times are given twice: RFC 3339 in UTC, and seconds since the epoch. Missing values are null, and
claims are shown by claim id, never by token.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, TextIO

from lockkit.printable import printable

if TYPE_CHECKING:
    from pathlib import Path

    from lockkit.cli import documents, parts
    from lockkit.client import Client
    from lockkit.facts import ReleaseReport
    from lockkit.lease import Lease

if TYPE_CHECKING:
    from lockkit.views.making import (
        claim,
        drain,
        findings,
        located,
        lock,
        lock_state,
        owner,
        record,
        release_request,
        rfc3339,
        store,
    )
else:

    def __getattr__(name: str) -> object:
        """Find a function of :mod:`lockkit.views.making` when it is first used: most commands need none of it."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from lockkit.views import making

        return getattr(making, name)


__all__ = [
    "claim",
    "clock_time",
    "colour",
    "drain",
    "findings",
    "located",
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


def store_words(client: Client) -> str:
    """The store for people: ``store: sqlite:/home/ann/.local/state/lockkit/lockkit.db (from default)``."""
    from lockkit.views.making import located

    return f"store: {located(client)} (from {client.url_source})"


def store_folder(client: Client) -> Path | None:
    """The folder of the embedded store's file; None for another store."""
    from lockkit.views.making import located

    scheme, _, path = located(client).partition("?")[0].partition(":")
    if scheme != "sqlite" or not path:
        return None
    from pathlib import Path
    from urllib.parse import unquote

    return Path(unquote(path)).parent


def release(report: ReleaseReport) -> parts.Released:
    """The result of a release, layer by layer."""
    from lockkit.cli import parts
    from lockkit.views.making import rfc3339

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
