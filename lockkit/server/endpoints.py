"""The table of endpoints: the source of the routes, the OpenAPI document and docs/reference/http-api.md."""

from __future__ import annotations

from typing import Final

from lockkit.server import acts, events, looks, sessions
from lockkit.server.calls import Endpoint
from lockkit.server.documents import (
    AskReleaseBody,
    EvictBody,
    FailuresQuery,
    Health,
    LockQuery,
    LocksQuery,
    NoBody,
    Ping,
    QuarantineBody,
    SessionBody,
    SignedIn,
    StoreQuery,
    Stores,
)
from lockkit.views.documents import AskRelease, Evict, Failures, GpuLs, GpuQuarantine, Status

__all__ = ["ENDPOINTS"]

ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    Endpoint(
        "GET", "/livez", None, "The process answers; for a supervisor that restarts it.", Ping, looks.livez
    ),
    Endpoint(
        "GET",
        "/readyz",
        None,
        "At least one store answers; for a load balancer.",
        Ping,
        looks.readyz,
    ),
    Endpoint(
        "GET",
        "/health",
        "view",
        "The health of each store: healthy, warning or unhealthy, with the reasons. The status is 503 if it is unhealthy.",
        Health,
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
        "The stores of this server, with the ids that the parameter `store` takes, and what the sender may do.",
        Stores,
        looks.stores,
    ),
    Endpoint(
        "GET",
        "/api/locks",
        "view",
        "A page of the locks with their holders and waiters: the document of `lockkit status --json`.",
        Status,
        looks.locks,
        LocksQuery,
    ),
    Endpoint(
        "GET",
        "/api/lock",
        "view",
        "One lock, whether it is free or not, with a page of its waiters: the same document.",
        Status,
        looks.lock,
        LockQuery,
    ),
    Endpoint(
        "GET",
        "/api/failures",
        "view",
        "Releases that got no definite answer, as `lockkit failures list --json` shows them.",
        Failures,
        looks.failures,
        FailuresQuery,
    ),
    Endpoint(
        "GET",
        "/api/gpus",
        "view",
        "The GPUs of the server's host, as `lockkit gpu ls --json` shows them; none, with a remark, if it has none.",
        GpuLs,
        looks.gpus,
        StoreQuery,
    ),
    Endpoint(
        "GET",
        "/api/events",
        "view",
        "The changes of the locks as server-sent events `change`, each with a document `lockkit.change/1`. The first one says how things are.",
        "text/event-stream",
        events.events,
        StoreQuery,
    ),
    Endpoint(
        "POST",
        "/api/evict",
        "operate",
        "Force one claim out, as `lockkit evict` does. `now` needs the scope admin.",
        Evict,
        acts.evict,
        body=EvictBody,
    ),
    Endpoint(
        "POST",
        "/api/ask-release",
        "operate",
        "Ask a holder to release its lock, as `lockkit ask-release` does.",
        AskRelease,
        acts.ask_release,
        body=AskReleaseBody,
    ),
    Endpoint(
        "POST",
        "/api/gpus/{uuid}/quarantine",
        "operate",
        "Give a GPU of the server's host to nobody until `lockkit gpu clear`.",
        GpuQuarantine,
        acts.quarantine,
        body=QuarantineBody,
        example={"uuid": "GPU-54a033e8-1cc2-4a4c-9d2f-0d4d2d1a3b11"},
    ),
    Endpoint(
        "POST",
        "/api/session",
        None,
        "Sign in: exchange a token for a cookie that lasts 12 hours, for the page.",
        SignedIn,
        sessions.sign_in,
        body=SessionBody,
    ),
    Endpoint(
        "POST",
        "/api/session/end",
        None,
        "Sign out: remove the cookie.",
        SignedIn,
        sessions.sign_out,
        body=NoBody,
    ),
)
"""Every endpoint, in the order in which they are shown."""
