"""``run`` inside ``run``: what the outer one holds is told to the inner one by LOCKKIT_HELD, and believed if it is true."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from lockkit.names import digest
from lockkit.redaction import identity

if TYPE_CHECKING:
    from lockkit.client import Client
    from lockkit.lease import Lease
    from lockkit.store.spi import Terms

__all__ = ["VARIABLE", "Outer", "describe", "exports", "outer"]

VARIABLE = "LOCKKIT_HELD"


class Outer(NamedTuple):
    """A hold of a ``run`` around this one."""

    name: str
    claim_id: str
    fence: int
    kind: str
    capacity: int
    weight: int
    evicted: bool

    def covers(self, asked: Terms) -> bool:
        """Whether what is asked is a part of this hold, so that nobody else can hold what excludes it.

        The queue knows only weights within one capacity (a writer weighs all of it), so these decide: a reader or some
        permits never cover a writer, and another capacity excludes other people.
        """
        return not self.evicted and self.capacity == asked.capacity and self.weight >= asked.weight

    def __str__(self) -> str:
        return _words(self.kind, self.capacity, self.weight) + (", and evicted" if self.evicted else "")


def outer(client: Client, asked: Terms, environ: Mapping[str, str]) -> Outer | None:
    """The hold of an outer ``run`` on this name, store and namespace, if it still stands; one that covers if there is one.

    The variable outlives the hold in whatever the command left behind (a tmux server, a daemon), so the store is asked,
    and what it says of the hold is believed, not the variable.
    """
    name = asked.name
    found: Outer | None = None
    for entry in _entries(environ):
        if (entry.get("store"), entry.get("namespace"), entry.get("name")) != (*_place(client), name):
            continue
        held = {claim.claim_id: claim for claim in client.inspect(name).holders if claim.state == "HELD"}
        claim = held.get(str(entry.get("claim_id")))
        if claim is not None and claim.alive is not False:
            one = Outer(
                name,
                claim.claim_id,
                claim.fence,
                claim.kind,
                claim.capacity,
                claim.weight,
                claim.evicted,
            )
            if one.covers(asked):
                return one
            found = found or one
    return found


def describe(asked: Terms) -> str:
    """What is asked, in the words of the command line."""
    return _words(asked.kind, asked.capacity, asked.weight)


def _words(kind: str, capacity: int, weight: int) -> str:
    if kind == "semaphore":
        return f"--capacity {capacity} --permits {weight}"
    return {"read": "--shared", "write": "--exclusive"}.get(kind, "plain (no --shared, no --capacity)")


def exports(client: Client, lease: Lease, held: Terms, environ: Mapping[str, str]) -> dict[str, str]:
    """What a command learns of the lock it runs under."""
    store, namespace = _place(client)
    mine = {
        "name": lease.name,
        "claim_id": lease.claim_id,
        "fence": lease.fence,
        "kind": held.kind,
        "capacity": held.capacity,
        "weight": held.weight,
        "store": store,
        "namespace": namespace,
    }
    return {
        "LOCKKIT_LEASE_NAME": lease.name,
        "LOCKKIT_LEASE_TOKEN": lease.token,
        "LOCKKIT_LEASE_FENCE": str(lease.fence),
        VARIABLE: json.dumps([*_entries(environ), mine]),
    }


def _place(client: Client) -> tuple[str, str]:
    # A digest, because a URL may hold a password and this goes to the environment of everything that is started.
    return digest(identity(client.config.url))[:12], client.namespace


def _entries(environ: Mapping[str, str]) -> list[dict[str, object]]:
    try:
        entries = json.loads(environ.get(VARIABLE, "[]"))
    except ValueError:
        return []
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
