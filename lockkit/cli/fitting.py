"""Checks of ``run`` and ``acquire``: contradicting options, a store in this process, a wrong kind of lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lockkit.config.suggesting import command_line, same_store
from lockkit.errors import CapabilityError, CapacityMismatch, LockkitError

if TYPE_CHECKING:
    from lockkit.facts import ClaimInfo, Kind
    from lockkit.store.spi import Terms
    from lockkit.sync.client import Client

__all__ = ["kind", "mismatch", "reaches_others"]


def kind(
    ctx: click.Context,
    *,
    shared: bool,
    exclusive: bool,
    capacity: int | None,
    permits: int | None,
    no_wait: bool,
    timeout: float | None,
) -> Kind:
    """The kind of lock that the options select. Contradicting options are refused before connecting.

    Raises:
        click.UsageError: The options contradict each other.
    """
    chosen = [
        flag
        for flag, said in (
            ("--shared", shared),
            ("--exclusive", exclusive),
            ("--capacity", capacity is not None),
        )
        if said
    ]
    if len(chosen) > 1:
        ctx.fail(f"{chosen[0]} and {chosen[1]} cannot be used together")
    if permits is not None and capacity is None:
        ctx.fail("--permits needs --capacity")
    if no_wait and timeout:
        ctx.fail("--no-wait and --timeout cannot be used together")
    if capacity is not None:
        return "semaphore"
    if shared:
        return "read"
    return "write" if exclusive else "mutex"


def reaches_others(client: Client) -> None:
    """Refuse a store that lives in this process, because every command would have a store of its own.

    Raises:
        CapabilityError: The store lives in this process.
    """
    if client.capabilities.scope == "process":
        raise CapabilityError(
            f"a lock on {client.url} works only within one process, and each lockkit "
            "command is a process of its own",
            hint="for locks between your processes on this host use --url sqlite: (the default)",
        )


def mismatch(client: Client, terms: Terms, error: CapacityMismatch) -> CapacityMismatch:
    """The same error in terms of the command line: the options that others use, and the options to use."""
    other = _other(client, error)
    if other is None or other.capacity == terms.capacity:
        return error
    name = terms.name
    if other.kind in ("read", "write"):
        text = f"{name!r} is used by readers and writers, such as {other.owner}"
        hint = "use --exclusive to be alone, or --shared to be one of the readers"
    elif other.kind == "semaphore":
        text = f"{name!r} is in use with --capacity {other.capacity} by {other.owner}"
        hint = f"use --capacity {other.capacity} as the others do"
        if terms.kind == "semaphore":
            way = same_store(client.config)
            line = command_line("resize", name, str(terms.capacity), options=way.options)
            hint += f"; to change theirs{way.first}: {line}"
    else:
        text = f"{name!r} is used as a plain lock by {other.owner}"
        hint = "use none of --capacity, --shared and --exclusive, as the others do"
    return CapacityMismatch(text, name=name, holder=other, hint=hint)


def _other(client: Client, error: CapacityMismatch) -> ClaimInfo | None:
    if error.holder is not None:
        return error.holder
    try:
        claims = client.inspect(error.name or "").claims
    except LockkitError:
        return None
    return claims[0] if claims else None
