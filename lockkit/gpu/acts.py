"""The endpoint of the server that quarantines a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lockkit.errors import ConfigError, DevicesUnavailable
from lockkit.gpu.quarantine import quarantined
from lockkit.gpu.views import HostView
from lockkit.server.audit import audited
from lockkit.server.problems import HttpProblem
from lockkit.views import documents
from lockkit.views.making import made_of

if TYPE_CHECKING:
    from lockkit.server.calls import Call

__all__ = ["quarantine"]


def quarantine(call: Call) -> documents.GpuQuarantine:
    """Quarantine a GPU of this host."""
    body, store, visitor, uuid = call.body, call.store, call.visitor, call.path["uuid"]
    assert visitor is not None
    client, view = store.client, HostView(call.store.client)
    try:
        host = view.host
    except ConfigError as error:
        raise HttpProblem(409, "other_host", error.message, hint=error.hint) from None
    if body.host != host:
        raise HttpProblem(
            409, "other_host", f"this server runs on {host}, and marks only the GPUs of that host"
        )
    present = quarantined(client, host).get(uuid)
    if present is not None:
        raise HttpProblem(409, "quarantined", f"{uuid} is {present} already")
    try:
        known = any(uuid == one.uuid for one in view.look().snapshot.devices)
    except DevicesUnavailable as error:
        raise HttpProblem(404, "no_such_gpu", error.message) from None
    if not known:
        raise HttpProblem(404, "no_such_gpu", f"{host} has no GPU {uuid!r}")
    by = client.owner._replace(user=visitor.name)
    with audited(call, store, "quarantine", host=host, uuid=uuid, reason=body.reason) as outcome:
        host, mark = view.quarantine(uuid, body.reason, by)
        outcome.word = "quarantined"
    store.forget()
    return made_of(documents.GpuQuarantine, store=client, host=host, uuid=uuid, quarantine=mark)
