"""The table of endpoints: the source of the routes, the OpenAPI document and docs/reference/http-api.md."""

from __future__ import annotations

from typing import Final

from lockkit.server import acts, deciding, events, looks, past, sessions
from lockkit.server import documents as own
from lockkit.server.calls import Endpoint
from lockkit.views import documents

__all__ = ["ENDPOINTS"]

ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    Endpoint(
        "GET",
        "/livez",
        None,
        "The process answers; for a supervisor that restarts it.",
        own.Ping,
        looks.livez,
    ),
    Endpoint(
        "GET",
        "/readyz",
        None,
        "At least one store answers; for a load balancer.",
        own.Ping,
        looks.readyz,
    ),
    Endpoint(
        "GET",
        "/health",
        "view",
        "The health of each store: healthy, warning or unhealthy, with the reasons. "
        "The status is 503 if it is unhealthy.",
        own.Health,
        looks.health,
        ok=(200, 503),
    ),
    Endpoint(
        "GET",
        "/metrics",
        "view",
        "What the stores say of their locks, for Prometheus; see the page about metrics.",
        "text/plain",
        looks.metrics,
    ),
    Endpoint(
        "GET",
        "/api/stores",
        "view",
        "The stores of this server, with the ids that the parameter `store` takes, "
        "and what the sender may do.",
        own.Stores,
        looks.stores,
    ),
    Endpoint(
        "GET",
        "/api/locks",
        "view",
        "A page of the locks with their holders and waiters: the document of `lockkit status --json`.",
        documents.Status,
        looks.locks,
        own.LocksQuery,
    ),
    Endpoint(
        "GET",
        "/api/lock",
        "view",
        "One lock, whether it is free or not, with a page of its waiters: the same document.",
        documents.Status,
        looks.lock,
        own.LockQuery,
    ),
    Endpoint(
        "GET",
        "/api/failures",
        "view",
        "Releases that got no definite answer, as `lockkit failures list --json` shows them.",
        documents.Failures,
        looks.failures,
        own.FailuresQuery,
    ),
    Endpoint(
        "GET",
        "/api/gpus",
        "view",
        "The GPUs of the server's host, as `lockkit gpu ls --json` shows them; "
        "none, with a remark, if it has none.",
        documents.GpuLs,
        looks.gpus,
        own.StoreQuery,
    ),
    Endpoint(
        "GET",
        "/api/alerts",
        "view",
        "The alerts of now and the silences, as `lockkit alerts list --json` shows them.",
        documents.Alerts,
        deciding.alerts,
        own.StoreQuery,
    ),
    Endpoint(
        "GET",
        "/api/history",
        "view",
        "A page of the past of the store's locks, from the event journals of the server's host: "
        "the document of `lockkit history --json`.",
        documents.History,
        past.history,
        own.HistoryQuery,
    ),
    Endpoint(
        "GET",
        "/api/events",
        "view",
        "The changes of the locks as server-sent events `change`, each with a document `lockkit.change/1`. "
        "The first one says how things are.",
        "text/event-stream",
        events.events,
        own.StoreQuery,
    ),
    Endpoint(
        "GET",
        "/api/consequences",
        "view",
        "What an eviction or a request to release would do to a claim, in sentences. Nothing is changed.",
        own.Consequences,
        acts.would,
        own.ConsequencesQuery,
        statuses=(409,),
    ),
    Endpoint(
        "POST",
        "/api/evict",
        "operate",
        "Force one claim out, as `lockkit evict` does. `now` needs the scope admin.",
        documents.Evict,
        acts.evict,
        body=own.EvictBody,
    ),
    Endpoint(
        "POST",
        "/api/ask-release",
        "operate",
        "Ask a holder to release its lock, as `lockkit ask-release` does.",
        documents.AskRelease,
        acts.ask_release,
        body=own.AskReleaseBody,
    ),
    Endpoint(
        "POST",
        "/api/gpus/{uuid}/quarantine",
        "operate",
        "Give a GPU of the server's host to nobody until `lockkit gpu clear`.",
        documents.GpuQuarantine,
        acts.quarantine,
        body=own.QuarantineBody,
        example={"uuid": "GPU-54a033e8-1cc2-4a4c-9d2f-0d4d2d1a3b11"},
    ),
    Endpoint(
        "POST",
        "/api/alerts/{fingerprint}/ack",
        "operate",
        "Say that the sender deals with an alert, or take that back, as `lockkit alerts ack` does.",
        documents.AlertAck,
        deciding.acknowledge,
        body=own.AckBody,
        example={"fingerprint": "5f2c9a01b7de"},
    ),
    Endpoint(
        "POST",
        "/api/alerts/{fingerprint}/silence",
        "operate",
        "Tell nothing of an alert for a time, as `lockkit alerts silence` does.",
        documents.AlertSilence,
        deciding.silence,
        body=own.SilenceBody,
        example={"fingerprint": "5f2c9a01b7de"},
    ),
    Endpoint(
        "POST",
        "/api/silences/{id}/end",
        "operate",
        "End a silence at once, as `lockkit alerts silence --end` does.",
        documents.AlertSilence,
        deciding.end_silence,
        body=own.StoreBody,
        example={"id": "9c01d2aa"},
    ),
    Endpoint(
        "POST",
        "/api/session",
        None,
        "Sign in: exchange a token for a cookie that lasts 12 hours, for the page.",
        own.SignedIn,
        sessions.sign_in,
        body=own.SessionBody,
    ),
    Endpoint(
        "POST",
        "/api/session/end",
        None,
        "Sign out: remove the cookie.",
        own.SignedIn,
        sessions.sign_out,
        body=own.NoBody,
    ),
)
"""Every endpoint, in the order in which they are shown."""
