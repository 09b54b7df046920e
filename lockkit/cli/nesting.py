"""``run`` inside a ``run`` or task: LOCKKIT_HELD names the outer hold, which the store must confirm."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from lockkit.lib.namedtuples import NamedTuple
from lockkit.protocol.outer import VARIABLE, outer_holds, variables
from lockkit.shared.leases import described

if TYPE_CHECKING:
    from lockkit.facts import ClaimInfo
    from lockkit.store.spi import Terms
    from lockkit.sync.client import Client
    from lockkit.sync.lease import Lease

__all__ = ["VARIABLE", "Outer", "describe", "exports", "held_around", "outer", "outer_of", "passed_on"]


class Outer(NamedTuple):
    """A hold of a ``run`` or a task around this ``run``."""

    name: str
    claim_id: str
    fence: int
    kind: str
    capacity: int
    weight: int
    evicted: bool

    def covers(self, asked: Terms) -> bool:
        """Whether this hold includes what is asked for.

        Weight and capacity decide, as in the queue: a reader or some permits never cover a writer, which
        weighs all of the capacity, and a lock of another capacity is another lock.
        """
        return not self.evicted and self.capacity == asked.capacity and self.weight >= asked.weight

    def __str__(self) -> str:
        return _words(self.kind, self.capacity, self.weight) + (", and evicted" if self.evicted else "")


def outer(client: Client, asked: Terms) -> Outer | None:
    """The outer hold on this name, store and namespace, if still held; preferably one that covers ``asked``.

    The variable outlives the hold in processes that the command left behind (a tmux server, a daemon). So
    the store is asked, and its answer counts.
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
    """The claims of all outer holds in this store and namespace that are held; only on a name, if given.

    Claim ids decide, because no other store has them: one store may have several names (host, address).
    """
    for entry in outer_holds(os.environ):
        named = str(entry.get("name"))
        if entry.get("namespace") != client.namespace or name not in (None, named):
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
    """The environment variables that describe its locks to a command; None for one that must not be set."""
    names = [lease.name for lease in leases]
    if reused:
        names = sorted([*names, *(hold.name for hold in reused)])
    holds = [*_used_last(environ, reused), *described(client.config, leases)]
    return variables(names, holds, leases[0].fence, leases[0].token)


def passed_on(holds: Sequence[Outer], environ: Mapping[str, str]) -> dict[str, str | None]:
    """The environment variables of a command that works under outer holds, as :func:`exports` has them.

    The inherited variables describe the innermost locks, which may be others. The token is passed on only
    if it is that of the one hold: LOCKKIT_HELD does not contain tokens.
    """
    only = holds[0]
    same = (environ.get("LOCKKIT_LEASE_NAME"), environ.get("LOCKKIT_LEASE_FENCE")) == (
        only.name,
        str(only.fence),
    )
    token = environ.get("LOCKKIT_LEASE_TOKEN") if same else None
    return variables([hold.name for hold in holds], _used_last(environ, holds), only.fence, token)


def _used_last(environ: Mapping[str, str], used: Sequence[Outer]) -> list[dict[str, object]]:
    """The holds in the variable; those in use come last, as those of the innermost run."""
    ids = {hold.claim_id for hold in used}
    return sorted(outer_holds(environ), key=lambda entry: entry.get("claim_id") in ids)
