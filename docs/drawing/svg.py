"""A picture in SVG: boxes, arrows and text on a panel of its own, in light and in dark colours."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

__all__ = ["Picture", "Written", "document", "width_of"]

_COLOURS = {
    # part: (light, dark)
    "panel": ("#ffffff", "#161b22"),
    "edge": ("#d0d7de", "#30363d"),
    "ink": ("#1f2328", "#e6edf3"),
    "soft": ("#59636e", "#9da7b3"),
    "free": ("#f6f8fa", "#21262d"),
    "free-edge": ("#8c959f", "#6e7681"),
    "holds": ("#dafbe1", "#12361f"),
    "holds-edge": ("#1a7f37", "#3fb950"),
    "waits": ("#ddf4ff", "#0c2d4d"),
    "waits-edge": ("#0969da", "#58a6ff"),
    "warns": ("#fff8c5", "#3b2e0a"),
    "warns-edge": ("#9a6700", "#d29922"),
    "bad": ("#ffebe9", "#4a1517"),
    "bad-edge": ("#cf222e", "#f85149"),
}

_SANS = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"
_MONO = "ui-monospace, SFMono-Regular, Menlo, 'DejaVu Sans Mono', monospace"
_WIDTHS = {"il.,:;'|! jtfr()[]/": 0.36, "mwMW@%": 0.97, "ABCDEFGHKLNOPQRSTUVXYZ": 0.75}
"""The widths of characters in a wide font, in units of its size. A narrower font leaves some room."""


def width_of(words: str, size: float, *, mono: bool = False) -> float:
    """The width of a text in a wide font."""
    if mono:
        return 0.61 * size * len(words)
    known = {letter: width for letters, width in _WIDTHS.items() for letter in letters}
    return size * sum(known.get(letter, 0.62) for letter in words)


class Written(NamedTuple):
    """A text, and the space that it takes."""

    words: str
    left: float
    top: float
    right: float
    bottom: float


class Picture:
    """A picture that is being drawn.

    Attributes:
        title: Names the picture.
        description: Says in words what there is to see, for those who cannot see it.
        written: All texts, with the space that each of them takes.
    """

    def __init__(self, width: int, height: int, title: str, description: str) -> None:
        self.width = width
        self.height = height
        self.title = title
        self.description = description
        self.written: list[Written] = []
        self._parts: list[str] = []

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: float = 14,
        kind: str = "ink",
        anchor: str = "start",
        mono: bool = False,
        bold: bool = False,
    ) -> None:
        """Write a text whose baseline begins, has its middle or ends at a point."""
        wide = width_of(words, size, mono=mono) * (1.06 if bold else 1)
        left = x - {"start": 0, "middle": wide / 2, "end": wide}[anchor]
        self.written.append(Written(words, left, y - 0.8 * size, left + wide, y + 0.25 * size))
        looks = f"t {kind}" + (" m" if mono else "") + (" b" if bold else "")
        self._parts.append(
            f'<text class="{looks}" x="{x:g}" y="{y:g}" font-size="{size:g}" '
            f'text-anchor="{anchor}">{escape(words)}</text>'
        )

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        kind: str,
        lines: Sequence[str] = (),
        *,
        size: float = 14,
        mono: Sequence[int] = (),
    ) -> None:
        """Draw a box with lines of text in its middle; the first is bold if there are several.

        Args:
            x: The left edge.
            y: The upper edge.
            width: The width.
            height: The height.
            kind: What the box stands for: one of the colours.
            lines: The text.
            size: The size of the text.
            mono: The numbers of those lines that are commands or URLs.

        Raises:
            ValueError: A line does not fit into the box.
        """
        self._parts.append(
            f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6"/>'
        )
        step = size * 1.4
        first = y + height / 2 + size * 0.35 - step * (len(lines) - 1) / 2
        for at, words in enumerate(lines):
            bold = at == 0 and len(lines) > 1 and at not in mono
            self.text(
                x + width / 2,
                first + at * step,
                words,
                size=size if at == 0 else size - 1,
                anchor="middle",
                mono=at in mono,
                bold=bold,
            )
            written = self.written[-1]
            if written.left < x + 6 or written.right > x + width - 6:
                raise ValueError(f"{words!r} does not fit into its box")

    def line(
        self, points: Sequence[tuple[float, float]], kind: str = "soft", *, dashed: bool = False
    ) -> None:
        """Draw a line along some points."""
        self._path(points, f"s {kind}-s" + (" d" if dashed else ""))

    def arrow(self, points: Sequence[tuple[float, float]], kind: str = "soft") -> None:
        """Draw a line along some points that ends in an arrowhead. The last part must be straight."""
        (x0, y0), (x, y) = points[-2:]
        self._path(points, f"s {kind}-s")
        along, across = (x > x0) - (x < x0), (y > y0) - (y < y0)
        left = (x - 8 * along + 4 * across, y - 8 * across + 4 * along)
        right = (x - 8 * along - 4 * across, y - 8 * across - 4 * along)
        corners = " ".join(f"{at:g},{to:g}" for at, to in ((x, y), left, right))
        self._parts.append(f'<polygon class="{kind}-f" points="{corners}"/>')

    def _path(self, points: Sequence[tuple[float, float]], looks: str) -> None:
        (x, y), *rest = points
        steps = "".join(f" L{at:g} {to:g}" for at, to in rest)
        self._parts.append(f'<path class="{looks}" d="M{x:g} {y:g}{steps}"/>')

    def svg(self, scheme: str = "both") -> str:
        """The picture as a file.

        Args:
            scheme: ``light`` or ``dark`` for one of them; ``both`` follows the reader's choice.
        """
        if scheme == "both":
            colours = f"{_rules(0)}\n@media (prefers-color-scheme: dark) {{\n{_rules(1)}\n}}"
        else:
            colours = _rules(("light", "dark").index(scheme))
        panel = (
            f'<rect class="panel" x="0.5" y="0.5" width="{self.width - 1}" '
            f'height="{self.height - 1}" rx="8"/>'
        )
        return document(
            self.width,
            self.height,
            self.title,
            self.description,
            f"{_SHAPES}\n{colours}",
            [panel, *self._parts],
        )


def document(width: int, height: int, title: str, description: str, style: str, parts: Sequence[str]) -> str:
    """A whole file in SVG, with a title and a description for those who cannot see it."""
    head = (
        f'viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img" aria-labelledby="title description"'
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {head}>',
            f'<title id="title">{escape(title)}</title>',
            f'<desc id="description">{escape(description)}</desc>',
            f"<style>\n{style}\n</style>",
            *parts,
            "</svg>\n",
        ]
    )


_SHAPES = "\n".join(
    [
        f".t {{ font-family: {_SANS} }}",
        f".m {{ font-family: {_MONO} }}",
        ".b { font-weight: 600 }",
        ".s { fill: none; stroke-width: 1.5 }",
        ".d { stroke-dasharray: 5 4 }",
    ]
)


def _rules(scheme: int) -> str:
    found = []
    for name, colours in _COLOURS.items():
        colour = colours[scheme]
        if name in ("ink", "soft"):
            found.append(f".{name}, .{name}-f {{ fill: {colour} }} .{name}-s {{ stroke: {colour} }}")
        elif f"{name}-edge" in _COLOURS or name == "panel":
            edge = _COLOURS["edge" if name == "panel" else f"{name}-edge"][scheme]
            found.append(
                f".{name} {{ fill: {colour}; stroke: {edge} }} .{name}-s {{ stroke: {edge} }} "
                f".{name}-f, .{name}-ink {{ fill: {edge} }}"
            )
    return "\n".join(found)
