"""Endpoints that change something, or say what they would do. If what was seen is gone, they answer 409."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from lockkit.errors import NotHeld
from lockkit.hooks import of_gpus
from lockkit.notes.remarks import askable, gone
from lockkit.server.audit import audited
from lockkit.server.documents import Consequences
from lockkit.server.problems import HttpProblem
from lockkit.server.tokens import allows
from lockkit.views import documents, making, parts
from lockkit.views.consequences import consequences
from lockkit.views.making import made_of

if TYPE_CHECKING:
    from lockkit.server.calls import Call

__all__ = ["ask_release", "evict", "quarantine", "would"]


def would(call: Call) -> Consequences:
    """Sentences about what an intervention would do to a claim."""
    query, client = call.query, call.store.client
    found = client.inspect(query.name)
    claim = next((one for one in found.claims if one.claim_id == query.claim_id), None)
    try:
        if claim is None:
            raise gone(found, query.claim_id)
        if query.act == "ask-release":
            askable(found, query.claim_id)
    except NotHeld as error:
        raise _absent(error) from None
    now = client.driver().clock.wall()
    sentences = consequences(query.act, found, claim, now, _utc, at_once=query.now)
    return made_of(Consequences, query, claim=claim, sentences=sentences)


def evict(call: Call) -> documents.Evict:
    """Force one claim out."""
    body, store, visitor = call.body, call.store, call.visitor
    assert visitor is not None
    if body.now and not allows(visitor.scope, "admin"):
        raise HttpProblem(
            403, "scope", "now needs the scope admin, because then two may work at once", name=body.name
        )
    with audited(
        call, store, "evict", name=body.name, claim=body.claim_id, reason=body.reason, now=body.now
    ) as outcome:
        reason = f"{body.reason} ({visitor.name})"
        result = store.client.evict(body.name, body.claim_id, reason=reason, now=body.now)
        outcome.word = result.outcome.lower()
    store.forget()
    if result.outcome == "ABSENT":
        missing = gone(store.client.inspect(body.name), body.claim_id)
        raise _absent(missing)
    return made_of(documents.Evict, body, result, store=making.store(store.client), reason=reason)


def ask_release(call: Call) -> documents.AskRelease:
    """Ask a holder to release its lock."""
    body, store, visitor = call.body, call.store, call.visitor
    assert visitor is not None
    try:
        with audited(
            call, store, "ask_release", name=body.name, claim=body.claim_id, reason=body.reason
        ) as outcome:
            request = store.client.ask_release(body.name, body.claim_id, f"{body.reason} ({visitor.name})")
            outcome.word = "asked"
    except NotHeld as error:
        raise _absent(error) from None
    store.forget()
    claims = store.client.inspect(body.name).claims
    claim = next((one for one in claims if one.claim_id == body.claim_id), None)
    request_made = made_of(parts.ReleaseRequest, request, name=body.name)
    return made_of(
        documents.AskRelease, body, store=making.store(store.client), request=request_made, claim=claim
    )


def _utc(at: float) -> str:
    return time.strftime("%H:%M:%S UTC", time.gmtime(at))


def _absent(missing: NotHeld) -> HttpProblem:
    return HttpProblem(
        409, "absent", missing.message, hint=missing.hint, name=missing.name, holder=missing.holder
    )


def quarantine(call: Call) -> documents.GpuQuarantine:
    """Quarantine a GPU of this host."""
    marked: documents.GpuQuarantine = of_gpus("quarantine")(call)
    return marked
