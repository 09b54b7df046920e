"""The result of a task that was skipped, as a document that every serializer of Celery can carry."""

from __future__ import annotations

from collections.abc import Mapping

from lockkit.carried import claim_document, claim_in
from lockkit.facts import Skipped

__all__ = ["skipped_document", "skipped_in"]

_KEY = "lockkit_skipped"


def skipped_document(skipped: Skipped) -> dict[str, object]:
    """The document of a task that was skipped: the lock, and the claim that holds it."""
    holder = skipped.holder
    return {
        _KEY: skipped.name,
        "holder": None if holder is None else claim_document(holder),
    }


def skipped_in(result: object) -> Skipped | None:
    """The :class:`~lockkit.facts.Skipped` in the result of a task; None if the task was not skipped.

        if skipped_in(bill.delay(7).get()) is not None:
            ...

    Compare with None: a Skipped is false, so ``if skipped_in(result):`` never holds; the result of a skipped
    task is a true dict. A Skipped itself, which a direct call returns, is returned as it is.
    """
    if isinstance(result, Skipped):
        return result
    if not isinstance(result, Mapping) or not isinstance(result.get(_KEY), str):
        return None
    name = str(result[_KEY])
    return Skipped(name, claim_in(name, result.get("holder")))
