"""Make and check lockkit's own part of a claim's note, before any I/O. :mod:`lockkit.lib.noted` reads it."""

from __future__ import annotations

import math
from collections.abc import Mapping

from lockkit.errors import ConfigError, NotHeld
from lockkit.facts import ClaimInfo, LockInfo, Owner, Progress, ReleaseRequest
from lockkit.lib.noted import LONGEST, RESERVED
from lockkit.values.names import digest

__all__ = [
    "askable",
    "checked",
    "gone",
    "progress",
    "requesting",
    "telling",
    "unreserved",
    "with_reason",
]


def checked(text: object, what: str, name: str | None = None) -> str:
    """Check a reason or message.

    Args:
        text: The text.
        what: The name of the argument.
        name: The lock.

    Raises:
        ConfigError: The text is no str, empty, longer than :data:`LONGEST`, or not printable.
    """
    if not isinstance(text, str):
        raise ConfigError(f"{what} must be a str, not {text!r}", name=name)
    if not text.strip():
        raise ConfigError(f"{what} must not be empty", name=name)
    if len(text) > LONGEST:
        raise ConfigError(
            f"{what} may have at most {LONGEST} characters; this one has {len(text)}", name=name
        )
    if not text.isprintable():
        raise ConfigError(
            f"{what} must be one line of characters that print, not {text!r}",
            name=name,
            hint="leave out newlines and control characters",
        )
    return text


def unreserved(note: object) -> None:
    """Refuse a note, or a patch of one, that has lockkit's own key.

    Raises:
        ConfigError: The note has the key.
    """
    if isinstance(note, Mapping) and RESERVED in note:
        raise ConfigError(
            f"the key {RESERVED!r} of a note belongs to lockkit itself",
            hint="use another key; a reason is given with reason=",
        )


def with_reason(
    note: Mapping[str, object] | None, reason: object, name: str | None = None
) -> Mapping[str, object]:
    """A note with the reason of an acquire.

    Raises:
        ConfigError: The reason is not allowed; see :func:`checked`.
    """
    return {**(note or {}), RESERVED: {"reason": checked(reason, "reason", name)}}


def progress(done: object, message: object, at: float, name: str | None = None) -> Progress:
    """The progress that a holder reports.

    Args:
        done: The share that is done, or None.
        message: The message, or None.
        at: Seconds since the epoch.
        name: The lock.

    Raises:
        ConfigError: The share is no number of 0 to 1, the message is not allowed, or there is neither.
    """
    if done is None and message is None:
        raise ConfigError("beat() needs progress or a message", name=name, hint="lease.beat(progress=0.4)")
    share: float | None = None
    if done is not None:
        if isinstance(done, bool) or not isinstance(done, int | float) or not 0.0 <= done <= 1.0:  # NaN, too
            raise ConfigError(f"progress must be a number from 0 to 1, not {done!r}", name=name)
        share = round(float(done), 4)
    return Progress(share, "" if message is None else checked(message, "message", name), at)


def telling(told: Progress) -> dict[str, object]:
    """The patch that puts progress into a note, in place of an earlier one."""
    at = round(told.at, 3) if math.isfinite(told.at) else None
    return {RESERVED: {"progress": {"done": told.done, "message": told.message or None, "at": at}}}


def requesting(
    reason: object, owner: Owner, at: float, name: str | None = None
) -> tuple[ReleaseRequest, dict[str, object]]:
    """A request to release, and the patch that adds it to a note.

    Requests of other users, from other hosts or with other reasons stay beside it. If the same user asks
    again with the same reason, the time of the request changes, and the holder is notified again.

    Args:
        reason: The reason.
        owner: The owner of the process that asks.
        at: Seconds since the epoch.
        name: The lock.

    Raises:
        ConfigError: The reason is not allowed; see :func:`checked`.
    """
    request = ReleaseRequest(str(owner), checked(reason, "reason", name), round(at, 3))
    key = digest(f"{owner.user}\0{owner.host}\0{request.reason}")[:12]
    return request, {RESERVED: {"asked": {key: dict(request._asdict())}}}


def askable(info: LockInfo, claim_id: str) -> ClaimInfo:
    """The claim that is to be asked.

    Raises:
        NotHeld: There is no such claim, or it holds nothing that it could release.
    """
    found = next((claim for claim in info.claims if claim.claim_id == claim_id), None)
    if found is None:
        raise gone(info, claim_id)
    if found.state in ("WAITING", "OFFERED"):
        raise NotHeld(
            f"claim {claim_id} of {info.name!r} only waits, and holds nothing that it could release",
            name=info.name,
            hint=_others(info),
        )
    if found.evicted or found.state == "LINGERING":
        raise NotHeld(
            f"claim {claim_id} of {info.name!r} has ended already,"
            " and only blocks the lock until its time is over",
            name=info.name,
            holder=found,
        )
    return found


def gone(info: LockInfo, claim_id: str) -> NotHeld:
    """The error for a claim that the queue of a name does not have."""
    return NotHeld(
        f"{info.name!r} has no claim {claim_id}; it may have ended",
        name=info.name,
        holder=info.holders[0] if info.holders else None,
        hint=_others(info),
    )


def _others(info: LockInfo) -> str:
    """The claims that hold a name, for a hint: at most three of them."""
    holders = [claim for claim in info.holders if claim.state == "HELD"]
    if not holders:
        return "nobody holds it now"
    shown = ", ".join(f"{claim.claim_id} ({claim.owner})" for claim in holders[:3])
    more = len(holders) - 3
    return f"held now by: {shown}{f' and {more} more' if more > 0 else ''}"
