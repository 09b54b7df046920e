"""The output of commands: JSON documents for programs, plain sentences and tables for people.

Every document names its schema. :mod:`lockkit.views.making` makes the parts of documents from facts.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, TextIO

from lockkit.lib.printable import printable
from lockkit.views.texts import located

if TYPE_CHECKING:
    from pathlib import Path

    from lockkit.sync.client import Client
    from lockkit.views import documents

__all__ = [
    "clock_time",
    "colour",
    "notice",
    "print_json",
    "say",
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
    from lockkit.views.documents import plain, written

    stream = sys.stdout if stream is None else stream
    if stream is sys.stderr:
        stream.write(f"{rows.document(plain(document), stream)}\n")
    elif indent and stream.isatty():
        stream.write(f"{json.dumps(plain(document), indent=2)}\n")
    else:
        stream.writelines(written(document))
    stream.flush()


def print_json(
    kind: type[documents.Document], /, *facts: object, indent: bool = False, **given: object
) -> None:
    """Make a document as :func:`lockkit.views.making.made_of` does, and write it to stdout."""
    from lockkit.views.making import made_of

    write_json(made_of(kind, *facts, **given), indent=indent)


def say(text: str, *, head: str = "", stream: TextIO | None = None) -> None:
    """Write a text for people. Unprintable characters are escaped: names and errors come from outside.

    ``head`` is written before it unescaped, for instance a coloured word. Standard error is flushed.
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
        from lockkit.cli.documents import Notice

        write_json(Notice(name=name, message=sentence), stream=sys.stderr)
    else:
        say(f"lockkit: {sentence}", stream=sys.stderr)


def colour(stream: TextIO | None = None) -> bool:
    """Whether to use colours and live lines: on a terminal that is not dumb, without NO_COLOR."""
    stream = sys.stdout if stream is None else stream
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def store_words(client: Client) -> str:
    """The store for people: ``store: sqlite:/home/ann/.local/state/lockkit/lockkit.db (from default)``."""
    return f"store: {located(client)} (from {client.url_source})"


def store_folder(client: Client) -> Path | None:
    """The folder of the embedded store's file; None for another store."""
    scheme, _, path = located(client).partition("?")[0].partition(":")
    if scheme != "sqlite" or not path:
        return None
    from pathlib import Path
    from urllib.parse import unquote

    return Path(unquote(path)).parent
