"""A terminal in SVG: what a command printed, each row at its moment."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import NamedTuple

from drawing.svg import document

__all__ = ["Recording", "Row", "record", "render", "rows"]

_COLUMNS, _ROWS = 80, 40
_CELL, _HEIGHT, _SIZE, _EDGE = 8.4, 19, 14, 20
_TYPING = 0.6
"""Seconds for which the prompt stands alone."""
_COLOURS = {"31": "#f85149", "32": "#3fb950", "33": "#d29922", "36": "#58a6ff"}
_INK, _DIM = "#e6edf3", "#9da7b3"

_STYLE = "\n".join(
    [
        f"text {{ font-size: {_SIZE}px; fill: {_INK}; white-space: pre }}",
        "text { font-family: ui-monospace, SFMono-Regular, Menlo, 'DejaVu Sans Mono', monospace }",
        f".bold {{ font-weight: 600 }} .dim {{ fill: {_DIM} }}",
        *(f".c{code} {{ fill: {colour} }}" for code, colour in _COLOURS.items()),
        "g { animation: appear 1ms both }",
        "@keyframes appear { from { opacity: 0 } to { opacity: 1 } }",
        "@media (prefers-reduced-motion: reduce) { g { animation: none } }",
    ]
)


class Recording(NamedTuple):
    """The output of a command, with the time of each part.

    Attributes:
        command: The command, as one would type it.
        output: Seconds since its start, and text, of each piece.
    """

    command: str
    output: Sequence[tuple[float, str]]

    def to_cast(self) -> str:
        """As a file of asciinema, version 2."""
        head = {"version": 2, "width": _COLUMNS, "height": _ROWS, "command": self.command}
        pieces = [json.dumps([at, "o", text], ensure_ascii=False) for at, text in self.output]
        return "\n".join([json.dumps(head), *pieces]) + "\n"

    @classmethod
    def from_cast(cls, text: str) -> Recording:
        """From such a file."""
        head, *pieces = [json.loads(line) for line in text.splitlines()]
        return cls(head["command"], [(at, words) for at, _, words in pieces])


class Row(NamedTuple):
    """A row of the terminal.

    Attributes:
        at: When the row was complete, in seconds.
        runs: Texts and their SGR codes, such as ``1;31``.
    """

    at: float
    runs: Sequence[tuple[str, str]]

    @property
    def text(self) -> str:
        return "".join(words for words, _ in self.runs)


def record(command: str, argv: Sequence[str], environ: Mapping[str, str]) -> Recording:
    """Run a command in a terminal of its own until the command ends.

    Args:
        command: What the picture shows as typed.
        argv: What to run.
        environ: The environment of the command, apart from the kind of terminal.

    Raises:
        RuntimeError: The command failed.
    """
    began = time.monotonic()
    master, terminal = pty.openpty()
    kind = {"TERM": "xterm-256color", "COLUMNS": str(_COLUMNS), "LINES": str(_ROWS), "LC_ALL": "C.UTF-8"}
    process = subprocess.Popen(
        argv,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**environ, **kind},
        start_new_session=True,
    )
    os.close(terminal)
    output: list[tuple[float, str]] = []
    while True:
        try:
            data = os.read(master, 65536)
        except OSError:  # the last process of the terminal has ended
            break
        if not data:
            break
        output.append((round(time.monotonic() - began, 2), data.decode()))
    os.close(master)
    if process.wait():
        raise RuntimeError(
            f"{command} ended with {process.returncode}: {''.join(text for _, text in output)}"
        )
    return Recording(command, output)


def rows(recording: Recording) -> Iterator[Row]:
    """The rows that a recording leaves on the screen. Only text, colours and ends of rows may occur in it."""
    code = ""
    runs: list[tuple[str, str]] = []
    for at, piece in recording.output:
        for part in re.findall(r"\x1b\[[\d;]*m|\r?\n|[^\x1b\r\n]+|[\x1b\r]", piece):
            if part.endswith("\n"):
                yield Row(at, tuple(runs))
                runs = []
            elif part.startswith("\x1b[") and part.endswith("m"):
                code = part[2:-1].removeprefix("0")
            elif part in ("\x1b", "\r"):
                raise ValueError(f"a terminal code that this renderer does not know, in {piece!r}")
            else:
                runs.append((part, code))
    if runs:
        yield Row(recording.output[-1][0], tuple(runs))


def render(recording: Recording, title: str, description: str) -> str:
    """Draw a terminal in which the rows appear once, one after the other; without animations, all at once."""
    shown = [Row(0.0, (("$ ", "2"), (recording.command, "1"))), *rows(recording)]
    width = round(_COLUMNS * _CELL + 2 * _EDGE)
    height = len(shown) * _HEIGHT + 2 * _EDGE
    moments = sorted({row.at for row in shown})
    parts = [_moment(at, [(n, row) for n, row in enumerate(shown) if row.at == at]) for at in moments]
    panel = f'<rect width="{width}" height="{height}" rx="8" fill="#161b22" stroke="#30363d"/>'
    return document(width, height, title, description, _STYLE, [panel, *parts])


def _moment(at: float, appearing: Sequence[tuple[int, Row]]) -> str:
    drawn = []
    for number, row in appearing:
        column = 0
        for words, code in row.runs:
            if words.strip():
                drawn.append(_run(words, code, _EDGE + column * _CELL, _EDGE + number * _HEIGHT + 15))
            column += len(words)
    delay = "" if at == 0 else f' style="animation-delay: {at + _TYPING:.2f}s"'
    return f"<g{delay}>\n" + "\n".join(drawn) + "\n</g>"


def _run(words: str, code: str, x: float, y: float) -> str:
    """One run of text. Its length is said, so that columns meet whatever the reader's font is."""
    stripped = words.strip()
    x += (len(words) - len(words.lstrip())) * _CELL
    codes = code.split(";")
    looks = (
        ["bold"] * ("1" in codes)
        + ["dim"] * ("2" in codes)
        + [f"c{each}" for each in codes if each in _COLOURS]
    )
    styled = f' class="{" ".join(looks)}"' if looks else ""
    return (
        f'<text{styled} xml:space="preserve" x="{x:.1f}" y="{y:g}" textLength="{len(stripped) * _CELL:.1f}" '
        f'lengthAdjust="spacingAndGlyphs">{escape(stripped)}</text>'
    )
