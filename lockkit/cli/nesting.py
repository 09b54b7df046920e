"""``run`` inside ``run``: LOCKKIT_HELD describes the outer hold to the inner run, which checks it with the store."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from lockkit.members import in_pool
from lockkit.namedtuples import NamedTuple
from lockkit.names import digest
from lockkit.outer import VARIABLE, outer_holds
from lockkit.redaction import identity

if TYPE_CHECKING:
    from lockkit.client import Client
    from lockkit.facts import ClaimInfo
    from lockkit.lease import Lease
    from lockkit.store.spi import Terms

__all__ = ["VARIABLE", "Outer", "describe", "exports", "held_around", "outer", "outer_of", "passed_on"]


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


def outer(client: Client, asked: Terms) -> Outer | None:
    """The hold of an outer ``run`` on this name, store and namespace, if it is still held; preferably one that covers ``asked``.

    The variable outlives the hold in processes that the command left behind (a tmux server, a daemon), so the store is asked. The
    store's answer counts, not the variable.
    """
    name = asked.name
    found: Outer | None = None
    for claim in held_around(client, name):
        one = outer_of(claim)
        if one.covers(asked):
            return one
        found = found or one
    return found


def outer_of(claim: ClaimInfo) -> Outer:
    """The hold that a claim is."""
    return Outer(
        claim.name, claim.claim_id, claim.fence, claim.kind, claim.capacity, claim.weight, claim.evicted
    )


def held_around(client: Client, name: str | None = None) -> Iterator[ClaimInfo]:
    """The claims of every ``run`` around this one in this store and namespace that are still held; only those on a name, if one is given."""
    for entry in outer_holds(os.environ):
        named = str(entry.get("name"))
        if (entry.get("store"), entry.get("namespace")) != _place(client) or name not in (None, named):
            continue
        for claim in client.inspect(named).holders:
            if (claim.claim_id, claim.state) == (entry.get("claim_id"), "HELD") and claim.alive is not False:
                yield claim


def describe(asked: Terms) -> str:
    """The requested lock as options of the command line."""
    return _words(asked.kind, asked.capacity, asked.weight)


def _words(kind: str, capacity: int, weight: int) -> str:
    if kind == "semaphore":
        return f"--capacity {capacity} --permits {weight}"
    return {"read": "--shared", "write": "--exclusive"}.get(kind, "plain (no --shared, no --capacity)")


def exports(
    client: Client, leases: Sequence[Lease], environ: Mapping[str, str], reused: Sequence[Outer] = ()
) -> dict[str, str | None]:
    """The environment variables that tell a command about its locks; None for one that is not to be set.

    Args:
        client: The client.
        leases: The leases of this ``run``.
        environ: The environment that is inherited.
        reused: Holds of the ``run`` around this one that the command works under as well.
    """
    store, namespace = _place(client)
    mine = [
        {
            "name": lease.name,
            "claim_id": lease.claim_id,
            "fence": lease.fence,
            "kind": lease.terms.kind,
            "capacity": lease.terms.capacity,
            "weight": lease.terms.weight,
            "store": store,
            "namespace": namespace,
        }
        for lease in leases
    ]
    only = leases[0] if len(leases) == 1 and not reused else None
    names = [lease.name for lease in leases]
    if reused:
        names = sorted([*names, *(hold.name for hold in reused)])
    members = [found[1] for name in names if (found := in_pool(name)) is not None]
    return {
        "LOCKKIT_LEASE_NAME": None if only is None else only.name,
        "LOCKKIT_LEASE_TOKEN": None if only is None else only.token,
        "LOCKKIT_LEASE_FENCE": None if only is None else str(only.fence),
        "LOCKKIT_LEASE_NAMES": "\n".join(names),
        "LOCKKIT_POOL_MEMBERS": "\n".join(map(str, members)) if members else None,
        VARIABLE: json.dumps([*_used_last(environ, reused), *mine]),
    }


def passed_on(holds: Sequence[Outer], environ: Mapping[str, str]) -> dict[str, str | None]:
    """The environment variables of a command that works under holds of the ``run`` around this one, as :func:`exports` has them.

    The variables that are inherited describe the locks of the nearest ``run``, which may be others. The token is passed on only if
    it is that of the one hold: LOCKKIT_HELD does not contain tokens.
    """
    only = holds[0] if len(holds) == 1 else None
    same = only is not None and (environ.get("LOCKKIT_LEASE_NAME"), environ.get("LOCKKIT_LEASE_FENCE")) == (
        only.name,
        str(only.fence),
    )
    members = [found[1] for hold in holds if (found := in_pool(hold.name)) is not None]
    return {
        "LOCKKIT_LEASE_NAME": None if only is None else only.name,
        "LOCKKIT_LEASE_TOKEN": environ.get("LOCKKIT_LEASE_TOKEN") if same else None,
        "LOCKKIT_LEASE_FENCE": None if only is None else str(only.fence),
        "LOCKKIT_LEASE_NAMES": "\n".join(hold.name for hold in holds),
        "LOCKKIT_POOL_MEMBERS": "\n".join(map(str, members)) if members else None,
        VARIABLE: json.dumps(_used_last(environ, holds)),
    }


def _used_last(environ: Mapping[str, str], used: Sequence[Outer]) -> list[dict[str, object]]:
    """The holds in the variable; those that the command works under come last, as the holds of the innermost run."""
    ids = {hold.claim_id for hold in used}
    return sorted(outer_holds(environ), key=lambda entry: entry.get("claim_id") in ids)


def _place(client: Client) -> tuple[str, str]:
    # A digest, because a URL may contain a password, and every process that the command starts inherits the environment.
    return digest(identity(client.config.url))[:12], client.namespace
