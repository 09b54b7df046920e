"""One screen of a program that draws on the whole terminal, as a recording of its rows."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence

from drawing.terminal import Recording

__all__ = ["screen"]

_SECONDS = 60.0
_STRONG = 0.75
"""Up to this share of the strongest part, another part is not counted as a part of the colour."""


def screen(
    command: str, argv: Sequence[str], environ: Mapping[str, str], size: tuple[int, int], words: str
) -> Recording:
    """Run a program on a terminal until the screen shows some words, and end it.

    Args:
        command: What the picture shows as typed.
        argv: What to run.
        environ: The environment of the program, apart from the kind of terminal.
        size: Columns and rows.
        words: The words to wait for.

    Raises:
        RuntimeError: The words never came.
    """
    import pyte

    columns, rows = size
    shown = pyte.Screen(columns, rows)
    stream = pyte.ByteStream(shown)
    master, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (rows, columns))
    kind = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "LC_ALL": "C.UTF-8"}
    process = subprocess.Popen(
        argv,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**environ, **kind},
        start_new_session=True,
    )
    os.close(terminal)
    end = time.monotonic() + _SECONDS
    calm = False
    try:
        while not (calm and any(words in row for row in shown.display)):
            if time.monotonic() > end:
                raise RuntimeError(f"{command} never showed {words!r}")
            calm = not select.select([master], [], [], 0.3)[0]
            if not calm:  # pyte prints the private sequences that it does not know
                data = os.read(master, 65536)
                stream.feed(re.sub(rb"\x1b\[[<>=?][\d;]*(?:[a-gi-km-zA-Z$]|\$[a-z])", b"", data))
    finally:
        process.send_signal(signal.SIGTERM)
        while select.select([master], [], [], 1.0)[0]:
            try:
                os.read(master, 65536)
            except OSError:  # the last process of the terminal has ended
                break
        process.wait()
        os.close(master)
    return Recording(command, [(0.0, "".join(_row(shown.buffer[y], columns) for y in range(rows)))])


def _row(cells: Mapping[int, object], columns: int) -> str:
    """A row as text with SGR codes."""
    made, before = "", ""
    for x in range(columns):
        cell = cells[x]
        code = _code(str(cell.fg), bold=bool(cell.bold))  # type: ignore[attr-defined]  # pyte has no types
        if code != before:
            made += f"\x1b[{code or 0}m"
            before = code
        made += cell.data  # type: ignore[attr-defined]
    return f"{made.rstrip()}\x1b[0m\n"


def _code(colour: str, *, bold: bool) -> str:
    """The SGR code that is nearest to a colour of the screen: green, yellow, red, or none."""
    codes = ["1"] if bold else []
    if re.fullmatch("[0-9a-f]{6}", colour):
        parts = [int(colour[at : at + 2], 16) for at in (0, 2, 4)]
        red, green, blue = (part > _STRONG * max(*parts, 1) for part in parts)
        named = {(False, True, False): "32", (True, True, False): "33", (True, False, False): "31"}
        codes += [named[red, green, blue]] if (red, green, blue) in named else []
    return ";".join(codes)
