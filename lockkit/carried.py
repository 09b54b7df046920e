"""Facts as JSON documents, for stores and task queues; and back, from documents of any origin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast, get_args

from lockkit.facts import ClaimInfo, Drain, Owner, ReleaseOutcome, ReleaseReport
from lockkit.lib.noted import moment, number, whole_number

__all__ = [
    "claim_document",
    "claim_in",
    "drain_in",
    "owner_of",
    "packed_owner",
    "report_in",
    "text_in",
]

_LONGEST_FIELD = 1024
"""Characters of one field of an owner."""
_LONGEST_TEXT = 64 * 1024
_MOST_PID = 2**31 - 1
_MOST_NUMBER = 2**63 - 1


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and len(value) <= _LONGEST_FIELD else None


_OWNER: dict[str, Callable[[object], object]] = dict.fromkeys(Owner._fields, _text) | {
    "pid": lambda value: whole_number(value, _MOST_PID),
    "retries": lambda value: whole_number(value, _MOST_PID),
    "pid_space": lambda value: whole_number(value, _MOST_NUMBER),
    "started": number,
}


def packed_owner(owner: Owner) -> dict[str, object]:
    """The fields of an owner that are not empty."""
    return {key: value for key, value in owner._asdict().items() if value not in ("", None, 0)}


def owner_of(stored: object) -> Owner:
    """The owner from its stored form, without unknown fields (of a newer version) and impossible values."""
    if not isinstance(stored, Mapping):
        return Owner()
    checks = _OWNER.items()
    told = {name: check(stored[name]) for name, check in checks if name in stored}
    return Owner(**{name: value for name, value in told.items() if value is not None})  # type: ignore[arg-type]


def claim_document(claim: ClaimInfo) -> dict[str, object]:
    """The document of a claim that is in somebody's way."""
    return {
        "text": str(claim.owner),
        "claim_id": claim.claim_id,
        "fence": claim.fence,
        "since": claim.since,
        "owner": packed_owner(claim.owner),
    }


def claim_in(name: str, document: object) -> ClaimInfo | None:
    """The claim of a document; None if it is none.

    Args:
        name: The name of its lock.
        document: The document.
    """
    if not isinstance(document, Mapping):
        return None
    return ClaimInfo(
        name,
        str(document.get("claim_id", "")),
        "HELD",
        owner_of(document.get("owner")),
        whole_number(document.get("fence")) or 0,
        0,
        since=moment(document.get("since")) or 0.0,
    )


def text_in(told: Mapping[Any, Any], key: str) -> str | None:
    """A text of the document of an exception; None if it has none."""
    value = told.get(key)
    return value if isinstance(value, str) and len(value) <= _LONGEST_TEXT else None


def drain_in(told: object) -> Drain:
    """The mark in the document of an exception; an empty one if it has none."""
    found = told.get("drain") if isinstance(told, Mapping) else None
    if not isinstance(found, Mapping):
        return Drain("")
    return Drain(
        text_in(found, "namespace") or "",
        text_in(found, "reason") or "",
        owner_of(found.get("owner")),
        moment(found.get("since")) or 0.0,
        found.get("partial") is True,
    )


def report_in(told: object) -> ReleaseReport:
    """The report in an exception's document, without layers; ABANDONED if it has none."""
    found = told.get("report") if isinstance(told, Mapping) else None
    if not isinstance(found, Mapping):
        found = {}
    outcome = found.get("outcome")
    return ReleaseReport(
        text_in(found, "name") or "",
        text_in(found, "claim_id") or "",
        whole_number(found.get("fence")) or 0,
        cast("ReleaseOutcome", outcome if outcome in get_args(ReleaseOutcome) else "ABANDONED"),
        text_in(found, "reason") or "",
        expires_by=moment(found.get("expires_by")),
    )
