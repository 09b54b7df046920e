"""The drawing of the demo: one row per worker, time to the right, for 80 columns, pipes and no colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lockkit.cli.demo.history import Entry, HeldSpan

__all__ = ["Style", "draw"]

_LABEL = 6


@dataclass(frozen=True, slots=True)
class Style:
    """The look of cells. ``paint`` maps a kind of cell to the codes around it."""

    held: str
    waiting: str
    stopped: str
    killed: str
    lost: str
    paint: Mapping[str, str]

    @classmethod
    def of(cls, *, unicode: bool, colour: bool) -> Style:
        """A style of blocks if the terminal can show them, else of letters; with colours if wanted."""
        paint = (
            {
                "held": "\x1b[32m",
                "waiting": "\x1b[2m",
                "stopped": "\x1b[33m",
                "killed": "\x1b[1;31m",
                "lost": "\x1b[1;33m",
            }
            if colour
            else {}
        )
        cells = ("█", "·", "░", "✗", "!") if unicode else ("#", ".", "-", "X", "!")
        return cls(*cells, paint=paint)


def draw(
    logs: Mapping[str, Sequence[Entry]],
    holds: Sequence[HeldSpan],
    stopped: Mapping[str, tuple[float, float]],
    width: int,
    style: Style,
) -> list[str]:
    """Rows for a scale, every worker, and the legend."""
    times = [line.t for lines in logs.values() for line in lines]
    if not times:
        return ["nothing happened"]
    begin, end = min(times), max(times)
    cells = max(width - _LABEL - 1, 10)
    step = max(end - begin, 0.001) / cells

    def column(t: float) -> int:
        return min(max(int((t - begin) / step), 0), cells - 1)

    rows = [_scale(begin, end, cells, column)]
    for worker, lines in logs.items():
        row = [" "] * cells
        for since, until in _waits(lines):
            _fill(row, column(since), column(until), "waiting")
        mine = [hold for hold in holds if hold.worker == worker]
        for hold in mine:
            _fill(row, column(hold.start), column(hold.sure), "held")
        if worker in stopped:
            since, until = stopped[worker]
            _fill(row, column(since) + 1, column(until), "stopped")
        for hold in mine:
            if hold.end == "killed":
                row[min(column(hold.sure) + 1, cells - 1)] = "killed"
        for line in lines:
            if line.event == "lost":
                row[column(line.t)] = "lost"
        rows.append(f"{worker:<{_LABEL}}{_paint(row, style)}".rstrip())
    legend = (
        f"{style.held} holds  {style.waiting} waits  {style.stopped} stopped  "
        f"{style.killed} killed  {style.lost} learns that it lost the lock"
    )
    return [*rows, f"{'':{_LABEL}}{legend}"]


def _scale(begin: float, end: float, cells: int, column: object) -> str:
    assert callable(column)
    row = [" "] * (cells + 1)
    second = 0
    while begin + second <= end:
        mark = f"{second} s"
        at = column(begin + second)
        if at + len(mark) <= cells and all(cell == " " for cell in row[max(at - 1, 0) : at + len(mark)]):
            row[at : at + len(mark)] = mark
        second += 1
    return f"{'':{_LABEL}}{''.join(row)}".rstrip()


def _waits(lines: Sequence[Entry]) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = []
    since: float | None = None
    for line in lines:
        if line.event == "waits":
            since = line.t
        elif line.event == "holds" and since is not None:
            found.append((since, line.t))
            since = None
    return found


def _fill(row: list[str], start: int, end: int, kind: str) -> None:
    row[start : end + 1] = [kind] * (end + 1 - start)


def _paint(row: Sequence[str], style: Style) -> str:
    text, open_ = "", ""
    for kind in row:
        code = style.paint.get(kind, "")
        if code != open_:
            text += ("\x1b[0m" if open_ else "") + code
            open_ = code
        text += " " if kind == " " else str(getattr(style, kind))
    return text + ("\x1b[0m" if open_ else "")
