"""What people are shown of a text that somebody else wrote: a name, an owner, a note, a reason, a server's error."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str, *, lines: bool = False) -> str:
    r"""A text that does to a terminal what it says, and no more: what does not print is escaped, as ``repr`` does.

    That is control characters (C0, DEL and C1: terminals obey U+009B as they obey ESC [), those that turn the direction of
    writing (U+202E and its like), those of no width, the separators of lines and paragraphs, and blanks that look like a space.
    Without it one name could look like another, or a name could rewrite the screen.

    Args:
        text: The text.
        lines: Keep its newlines: the text is ours, and has several lines.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or (lines and char == "\n") else repr(char)[1:-1] for char in text
    )
