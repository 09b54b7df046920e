"""Read the part of a claim's note that lockkit writes: the holder's reason and progress, release requests.

That part has one key of the note, :data:`RESERVED`. Other programs may have written it, so each value of a
wrong type, or of an absurd size, counts as missing, and each text is one line of at most :data:`LONGEST`
printable characters. :mod:`lockkit.notes.remarks` makes the values.
"""

from __future__ import annotations

from collections.abc import Mapping

from lockkit.lib.namedtuples import NamedTuple
from lockkit.lib.printable import printable

__all__ = [
    "LONGEST",
    "RESERVED",
    "Progress",
    "ReleaseRequest",
    "moment",
    "number",
    "progress_in",
    "reason_in",
    "requests_in",
    "whole_number",
]

RESERVED = "lockkit"
"""The key of a note that only lockkit writes."""
LONGEST = 200
"""The most characters of a reason or message."""
_MOST = 10**18
"""The largest number believed. JSON has numbers too large for a float, which must end no reading program."""
_YEAR_9999 = 253_402_300_799
"""Seconds since the epoch: the last moment that a calendar can show."""


class ReleaseRequest(NamedTuple):
    """A request to release a lock: by whom, why, and when (seconds since the epoch, on the asker's clock)."""

    by: str
    reason: str
    at: float = 0.0

    def __str__(self) -> str:
        return printable(f"{self.by}: {self.reason}")


class Progress(NamedTuple):
    """A holder's last ``lease.beat``: the share done (0 to 1; None if not given), a message, and its time."""

    done: float | None = None
    message: str = ""
    at: float = 0.0

    def __str__(self) -> str:
        share = "" if self.done is None else f"{100.0 * self.done:.0f} %"
        return printable(", ".join(part for part in (share, self.message) if part))


def reason_in(note: Mapping[str, object]) -> str:
    """The reason that a note has; empty if it has none."""
    return _text(_own(note).get("reason"))


def progress_in(note: Mapping[str, object]) -> Progress | None:
    """The progress that a note has; None if its holder sent none."""
    told = _own(note).get("progress")
    if not isinstance(told, Mapping):
        return None
    return Progress(number(told.get("done"), 1), _text(told.get("message")), moment(told.get("at")) or 0.0)


def requests_in(note: Mapping[str, object]) -> Mapping[str, ReleaseRequest]:
    """The requests that a note has, the oldest first, each with its key in the note."""
    asked = _own(note).get("asked")
    if not isinstance(asked, Mapping):
        return {}
    found = [
        (
            str(key),
            ReleaseRequest(
                _text(one.get("by")) or "somebody", _text(one.get("reason")), moment(one.get("at")) or 0.0
            ),
        )
        for key, one in asked.items()
        if isinstance(one, Mapping)
    ]
    return dict(sorted(found, key=lambda each: each[1].at))


def _own(note: Mapping[str, object]) -> Mapping[str, object]:
    own = note.get(RESERVED)
    return own if isinstance(own, Mapping) else {}


def _text(value: object) -> str:
    text = printable(value[: LONGEST + 1]) if isinstance(value, str) else ""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def number(value: object, most: int = _MOST) -> float | None:
    """A number from 0 to ``most`` out of JSON that anybody may have written; None if the value is none."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most
    return float(value) if known and isinstance(value, int | float) else None


def whole_number(value: object, most: int = _MOST) -> int | None:
    """A whole number from 0 to ``most`` out of JSON of any origin; None if the value is none."""
    return value if isinstance(value, int) and number(value, most) is not None else None


def moment(value: object) -> float | None:
    """Seconds since the epoch, up to the year 9999, out of JSON of any origin; None if the value is none."""
    return number(value, _YEAR_9999)
