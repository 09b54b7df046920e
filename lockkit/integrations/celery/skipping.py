"""The result of a task that was skipped, as a document that every serializer of Celery can carry."""

from __future__ import annotations

from collections.abc import Mapping

from lockkit.facts import ClaimInfo, Skipped
from lockkit.noted import moment, whole_number
from lockkit.store.owners import packed_owner
from lockkit.store.untrusted import owner_of

__all__ = ["skipped_document", "skipped_in"]

_KEY = "lockkit_skipped"


def skipped_document(skipped: Skipped) -> dict[str, object]:
    """The document of a task that was skipped: the lock, and the claim that holds it."""
    holder = skipped.holder
    return {
        _KEY: skipped.name,
        "holder": None
        if holder is None
        else {
            "text": str(holder.owner),
            "claim_id": holder.claim_id,
            "fence": holder.fence,
            "since": holder.since,
            "owner": packed_owner(holder.owner),
        },
    }


def skipped_in(result: object) -> Skipped | None:
    """The :class:`~lockkit.facts.Skipped` that the result of a task stands for; None if the task was not skipped.

        if skipped_in(bill.delay(7).get()) is not None:
            ...

    Compare with None: a :class:`~lockkit.facts.Skipped` is false, so ``if skipped_in(result):`` never holds. The result of a skipped task, on the
    other hand, is a dict that is true. A Skipped itself, which a direct call returns, is returned as it is.
    """
    if isinstance(result, Skipped):
        return result
    if not isinstance(result, Mapping) or not isinstance(result.get(_KEY), str):
        return None
    name, told = str(result[_KEY]), result.get("holder")
    if not isinstance(told, Mapping):
        return Skipped(name)
    holder = ClaimInfo(
        name,
        str(told.get("claim_id", "")),
        "HELD",
        owner_of(told.get("owner")),
        whole_number(told.get("fence")) or 0,
        0,
        since=moment(told.get("since")) or 0.0,
    )
    return Skipped(name, holder)
