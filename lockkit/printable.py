"""Escapes for texts that somebody else wrote and people see: a name, an owner, a note, a reason, a server's error."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str, *, lines: bool = False) -> str:
    r"""A text that is safe to print on a terminal: characters that do not print are escaped, as ``repr`` does.

    Escaped are control characters (C0, DEL and C1: terminals obey U+009B as they obey ESC [), characters that turn the direction
    of writing (U+202E and others), characters without width, the separators of lines and paragraphs, and blanks that look like a
    space. Unescaped, one name could look like another, or a name could rewrite the screen.

    Args:
        text: The text.
        lines: Keep newlines, for a text of lockkit's own that has several lines.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or (lines and char == "\n") else repr(char)[1:-1] for char in text
    )
