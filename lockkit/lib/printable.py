"""Escapes for texts from outside that people see: a name, an owner, a note, a reason, a server's error."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str, *, lines: bool = False) -> str:
    r"""Escape the characters that do not print, as ``repr`` does, so that a terminal can show the text.

    These are control characters (C0, DEL and C1: terminals obey U+009B like ESC [), characters that change
    the direction of writing (U+202E and others), zero-width ones, separators of lines and paragraphs, and
    blanks that look like a space. Unescaped, a name could look like another, or rewrite the screen.

    Args:
        text: The text.
        lines: Keep newlines, for a text of several lines.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or (lines and char == "\n") else repr(char)[1:-1] for char in text
    )
