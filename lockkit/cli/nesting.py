"""``run`` inside ``run``: LOCKKIT_HELD describes the outer hold to the inner run, which checks it with the store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from lockkit.namedtuples import NamedTuple
from lockkit.names import digest
from lockkit.outer import VARIABLE, outer_holds
from lockkit.redaction import identity

if TYPE_CHECKING:
    from lockkit.client import Client
    from lockkit.lease import Lease
    from lockkit.store.spi import Terms

__all__ = ["VARIABLE", "Outer", "describe", "exports", "outer"]


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
        """Whether this hold includes what is asked for.

        Weight and capacity decide, as in the queue: a reader or some permits never cover a writer (which weighs all of the
        capacity), and a lock of another capacity is another lock.
        """
        return not self.evicted and self.capacity == asked.capacity and self.weight >= asked.weight

    def __str__(self) -> str:
        return _words(self.kind, self.capacity, self.weight) + (", and evicted" if self.evicted else "")


def outer(client: Client, asked: Terms, environ: Mapping[str, str]) -> Outer | None:
    """The hold of an outer ``run`` on this name, store and namespace, if it is still held; preferably one that covers ``asked``.

    The variable outlives the hold in processes that the command left behind (a tmux server, a daemon), so the store is asked. The
    store's answer counts, not the variable.
    """
    name = asked.name
    found: Outer | None = None
    for entry in outer_holds(environ):
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
    """The requested lock as options of the command line."""
    return _words(asked.kind, asked.capacity, asked.weight)


def _words(kind: str, capacity: int, weight: int) -> str:
    if kind == "semaphore":
        return f"--capacity {capacity} --permits {weight}"
    return {"read": "--shared", "write": "--exclusive"}.get(kind, "plain (no --shared, no --capacity)")


def exports(client: Client, lease: Lease, held: Terms, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that tell a command about its lock."""
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
        VARIABLE: json.dumps([*outer_holds(environ), mine]),
    }


def _place(client: Client) -> tuple[str, str]:
    # A digest, because a URL may contain a password, and every process that the command starts inherits the environment.
    return digest(identity(client.config.url))[:12], client.namespace
