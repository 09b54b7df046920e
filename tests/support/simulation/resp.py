"""The framing of Redis's protocol (RESP 2), as far as a line between client and server has to know it."""

from __future__ import annotations

from typing import Any

__all__ = ["Cut", "Failure", "shown", "value", "values"]


class Cut(Exception):
    """The rest of the value has not come yet."""


class Failure(str):
    """An error reply."""

    __slots__ = ()


def values(data: bytes) -> list[Any]:
    """All the values in a row, commands or replies.

    Raises:
        Cut: The last is not complete.
    """
    found, at = [], 0
    while at < len(data):
        each, at = value(data, at)
        found.append(each)
    return found


def value(data: bytes, at: int) -> tuple[Any, int]:
    """The value that begins at a place, and where it ends.

    Raises:
        Cut: The value is not complete.
    """
    end = data.find(b"\r\n", at)
    if end < 0:
        raise Cut
    kind, word, end = data[at : at + 1], data[at + 1 : end], end + 2
    match kind:
        case b"+":
            return word, end
        case b"-":
            return Failure(word.decode()), end
        case b":":
            return int(word), end
        case b"$":
            return _text(data, end, int(word))
        case b"*":
            several: list[Any] | None = None if word == b"-1" else []
            for _ in range(int(word)):
                each, end = value(data, end)
                assert several is not None
                several.append(each)
            return several, end
    raise ValueError(f"not RESP 2: {data[at : at + 40]!r}")


def _text(data: bytes, at: int, size: int) -> tuple[bytes | None, int]:
    if size < 0:
        return None, at
    if at + size + 2 > len(data):
        raise Cut
    return data[at : at + size], at + size + 2


def shown(answer: Any) -> str:
    """A value for a reader, who does not want to read JSON."""
    if isinstance(answer, list):
        return "[" + ", ".join(shown(each) for each in answer) + "]"
    if isinstance(answer, bytes):
        if answer.startswith(b"{"):
            return "{...}"
        return answer.decode(errors="replace") or "''"
    return str(answer)
