"""Read the part of a claim's note that lockkit itself writes: the holder's reason, its progress, and requests to release the lock.

That part stands under one key of the note, :data:`RESERVED`. The functions here read it from any note, also from one that another program
has written, so each value of a wrong type counts as missing. :mod:`lockkit.remarks` makes the values.
"""

from __future__ import annotations

from collections.abc import Mapping

from lockkit.namedtuples import NamedTuple
from lockkit.printable import printable

__all__ = ["RESERVED", "Progress", "ReleaseRequest", "progress_in", "reason_in", "requests_in"]

RESERVED = "lockkit"
"""The key of a note that only lockkit writes."""


class ReleaseRequest(NamedTuple):
    """A request to a holder to release its lock: who asked, why, and when (seconds since the epoch, on the asker's clock)."""

    by: str
    reason: str
    at: float = 0.0

    def __str__(self) -> str:
        return printable(f"{self.by}: {self.reason}")


class Progress(NamedTuple):
    """The last news of a holder, told with ``lease.beat``: the share that is done (0 to 1; None if it told none), a message, and when it told."""

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
    """The progress that a note has; None if its holder has told none."""
    told = _own(note).get("progress")
    if not isinstance(told, Mapping):
        return None
    done = told.get("done")
    known = isinstance(done, int | float) and not isinstance(done, bool)
    return Progress(_number(done) if known else None, _text(told.get("message")), _number(told.get("at")))


def requests_in(note: Mapping[str, object]) -> Mapping[str, ReleaseRequest]:
    """The requests that a note has, the oldest first, each with the key under which it stands."""
    asked = _own(note).get("asked")
    if not isinstance(asked, Mapping):
        return {}
    found = [
        (
            str(key),
            ReleaseRequest(
                _text(one.get("by")) or "somebody", _text(one.get("reason")), _number(one.get("at"))
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
    return value if isinstance(value, str) else ""


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
