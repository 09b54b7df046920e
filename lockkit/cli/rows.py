"""Rows of standard error: each is written by one write(2), so that two writers never share a row.

Many processes and threads write to one pipe, file or terminal: commands under their locks, several
``lockkit run`` of one script, the threads of one process. The kernel keeps one write(2) together if it goes
to a terminal or the end of a file, or to a pipe with at most PIPE_BUF bytes (4096; pipe(7)). So text is
collected until its row is complete. In a pipe or socket a longer row is cut into several, and the long
texts in a longer document are shortened.
"""

from __future__ import annotations

import io
import os
import select
import stat
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

__all__ = ["Rows", "document", "erase", "finish", "limit", "live"]

_PATIENCE = 1.0
"""Seconds to wait for a reader that made the pipe non-blocking and reads nothing; then a row is dropped."""
_ERASED = "\r\x1b[K"
_CUT = " [...] "
_SHORT = 200
"""Characters of a text in a document that are always kept."""


class Rows(io.TextIOWrapper):
    """Standard error, as rows that are never torn apart. Failures do not end a guarded command.

    The last row of a terminal may be a live line. Other rows are then written above it.
    """

    def __init__(self, stream: io.TextIOWrapper) -> None:
        encoding, errors = stream.encoding, stream.errors
        super().__init__(stream.detach(), encoding=encoding, errors=errors, write_through=True)
        self._begun = threading.local()
        self._mutex = threading.RLock()
        self._live = ""
        self.limit = limit(self)

    def write(self, text: str, /) -> int:
        before: str = getattr(self._begun, "text", "")
        rows, newline, self._begun.text = (before + text).rpartition("\n")
        if newline:
            self._put(rows + newline)
        return len(text)

    def flush(self) -> None:
        """Write a row that is not complete, such as a prompt."""
        text = getattr(self._begun, "text", "")
        self._begun.text = ""
        if text:
            self._put(text)

    def live(self, line: str, rows: str = "") -> None:
        """Show a live line in place of the one before; ``rows`` are written above it."""
        with self._mutex:
            self._send(f"{_ERASED}{rows}{line}")
            self._live = line

    def end(self, last: str) -> None:
        """End the live line, if there is one, by writing ``last``."""
        with self._mutex:
            if self._live:
                self._live = ""
                self._send(last)

    def _put(self, text: str) -> None:
        with self._mutex:
            if self._live and text.endswith("\n"):
                text = f"{_ERASED}{text}{self._live}"
            self._send(text)

    def _send(self, text: str) -> None:
        data = text.encode(self.encoding, self.errors or "strict")
        try:
            for piece in [data] if self.limit is None else _pieces(data, self.limit):
                _write(self.fileno(), piece)
        except (OSError, ValueError):
            return


def limit(stream: TextIO) -> int | None:
    """The longest row in bytes that the kernel keeps together in a stream; None if there is no limit."""
    try:
        mode = os.fstat(stream.fileno()).st_mode
    except (OSError, ValueError):
        return None
    return select.PIPE_BUF if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) else None


def document(content: Mapping[str, object], stream: TextIO) -> str:
    """A document as one JSON row that the stream keeps together; if too long, its longest texts are cut."""
    import json

    longest = limit(stream)
    made = json.dumps(content, default=str)
    if longest is None or len(made) < longest:
        return made
    whole: Any = json.loads(made)
    while len(made := json.dumps(whole)) >= longest:
        holder, key = max(_texts(whole), key=lambda place: len(place[0][place[1]]), default=(None, None))
        if holder is None or len(holder[key]) <= _SHORT:
            break  # there is nothing to shorten, so the document stays whole
        text = holder[key]
        half = max((len(text) - max(len(made) - longest, len(text) // 8)) // 2, _SHORT // 2) - len(_CUT)
        holder[key] = f"{text[:half]}{_CUT}{text[-half:]}"
    return made


def live(line: str, rows: str = "") -> None:
    """Show a live line in the last row of stderr, which is a terminal. See :meth:`Rows.live`."""
    if isinstance(sys.stderr, Rows):
        sys.stderr.live(line, rows)
    else:
        sys.stderr.write(f"{_ERASED}{rows}{line}")
        sys.stderr.flush()


def finish() -> None:
    """Leave the live line where it is, and go on in the next row."""
    _end("\n")


def erase() -> None:
    """Remove the live line."""
    _end(_ERASED)


def _end(last: str) -> None:
    if isinstance(sys.stderr, Rows):
        sys.stderr.end(last)
    else:
        sys.stderr.write(last)
        sys.stderr.flush()


def _texts(value: Any) -> Iterator[tuple[Any, Any]]:
    """The places of all texts in a document but names: the list or dict, and the index or key in it."""
    places = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in places:
        if isinstance(inner, str):
            if key != "name":
                yield value, key
        else:
            yield from _texts(inner)


def _pieces(data: bytes, longest: int) -> Iterator[bytes]:
    """Some rows in pieces that the kernel keeps together. Only a document (``{...}``) may be longer."""
    piece = b""
    *rows, rest = data.split(b"\n")
    for row in (*(each + b"\n" for each in rows), rest):
        if piece and len(piece) + len(row) > longest:
            yield piece
            piece = b""
        while len(row) > longest and not row.startswith(b"{"):
            end = longest - 1
            while end > longest - 5 and row[end] & 0xC0 == 0x80:  # not within a character of UTF-8
                end -= 1
            yield row[:end] + b"\n"
            row = b"  " + row[end:]  # noqa: PLW2901 (the rest of it)
        piece += row
    if piece:
        yield piece


def _write(descriptor: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            if not select.select([], [descriptor], [], _PATIENCE)[1]:
                return
