"""Rules for a job that asks for cards: the usable ones of an outer job, and who else computes. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lockkit.facts import Capabilities, ClaimInfo
from lockkit.gpu.choosing import CardRequest, never_fits
from lockkit.gpu.devices import Device, Snapshot
from lockkit.gpu.words import process_words, short_name
from lockkit.store.ttls import UsualTtl
from lockkit.values.sizes import MIB, show

__all__ = ["job_ttl", "strangers", "usable_inside"]

_TTL, _LONG_TTL = 60.0, 300.0
"""Seconds for which the store keeps a job's cards without a renewal, as a rule."""
_FIRST_UID, _NOBODY = 1000, 65534
"""The uids from the first to below the second are those of people, as a rule (login.defs)."""


def usable_inside(
    request: CardRequest, snapshot: Snapshot, held: Mapping[str, ClaimInfo]
) -> tuple[tuple[Device, ...], tuple[str, ...]]:
    """The cards of the outer job that an inner one may use, and a sentence for each other one.

    What is free on them is not compared: the outer job itself may use it.

    Args:
        request: The request of the inner job.
        snapshot: All cards.
        held: The claims of the outer job, by the UUID of the card.
    """
    good: list[Device] = []
    refused: list[str] = []
    for device in snapshot.devices:
        claim = held.get(device.uuid)
        if claim is None or device.sliced:
            continue
        why = never_fits(request, device)
        least = claim.capacity * MIB if request.memory is None else request.memory
        if claim.evicted:
            why = "the outer hold was evicted"
        elif why is None and claim.weight * MIB < least:
            why = f"the outer hold has only {show(claim.weight * MIB)} of it"
        if why is None:
            good.append(device)
        else:
            refused.append(f"{short_name(device)}: {why}")
    return tuple(good), tuple(refused)


def strangers(snapshot: Snapshot, me: str, uid_of: Callable[[str], int | None]) -> tuple[str, ...]:
    """A sentence for each process of another person on a card. System users, such as root, are no persons.

    Args:
        snapshot: All cards.
        me: The name of this user.
        uid_of: The uid of a user; None if this host does not know the name.
    """
    return tuple(
        f"{process_words(process)}, on {short_name(device)}"
        for device in snapshot.devices
        for process in device.processes or ()
        if process.user and process.user != me and _is_person(process.user, uid_of)
    )


def _is_person(user: str, uid_of: Callable[[str], int | None]) -> bool:
    uid = int(user) if user.isascii() and user.isdigit() else uid_of(user)
    return uid is None or (uid >= _FIRST_UID and uid != _NOBODY)


def job_ttl(capabilities: Capabilities) -> float:
    """Seconds for which a store keeps a job's cards without a renewal: long if a failover may take long."""
    return UsualTtl(_TTL if capabilities.failover_safe else _LONG_TTL)
