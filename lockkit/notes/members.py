"""The members of pools: which are allowed, and the names of their locks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lockkit.errors import ConfigError
from lockkit.facts import ClaimInfo
from lockkit.store.queue import RW_CAPACITY
from lockkit.values.names import check_name

__all__ = [
    "MOST",
    "POOLS",
    "check_growth",
    "check_within",
    "fitting_members",
    "in_pool",
    "members_of",
    "members_that_begin",
    "pool_name",
    "weights",
    "whole",
]

MOST = 64
"""The most locks in whose queues one acquisition may wait at once: each gets a claim and a watch."""
POOLS = "@pool/"
"""The beginning of all names that belong to pools; nobody can lock them by name."""
_LEAST = 8
"""Characters from which on a member is looked for by the beginning of its name."""


_NOTHING: Mapping[str, str] = {}


def pool_name(pool: str, member: str | None = None) -> str:
    """The name of the lock of a pool's member, or of the pool's gate; different for each."""
    parts = [pool] if member is None else [pool, member]
    return POOLS + "/".join(part.replace("%", "%25").replace("/", "%2F") for part in parts)


def in_pool(name: str) -> tuple[str, str | None] | None:
    """The pool and member of a lock, with None for the gate; None if the name belongs to no pool."""
    if not name.startswith(POOLS):
        return None
    parts = [part.replace("%2F", "/").replace("%25", "%") for part in name.removeprefix(POOLS).split("/")]
    return (parts[0], parts[1] if len(parts) > 1 else None) if len(parts) <= 2 else None


def members_that_begin(names: Iterable[str], word: str) -> list[str]:
    """The lock names of pool members that begin with a word of at least 8 characters, in any case."""
    folded = word.casefold()
    return [
        one
        for one in names
        if len(word) >= _LEAST and (found := in_pool(one)) and (found[1] or "").casefold().startswith(folded)
    ]


def members_of(names: Iterable[str], within: Mapping[str, str] = _NOTHING) -> tuple[str, ...]:
    """The members of these locks, without those that are locked only for another member within them."""
    members = [found[1] or "" for name in names if (found := in_pool(name)) is not None]
    around = {within[member] for member in members if member in within}
    return tuple(member for member in members if member not in around)


def weights(members: object, pool: str) -> Mapping[str, int]:
    """The members of a pool and the capacity of each, 1 if only names are given.

    Raises:
        ConfigError: There are none or too many, one is named twice, or a capacity is not a whole number.
    """
    if isinstance(members, Mapping):
        named = {**members}
    elif isinstance(members, Iterable) and not isinstance(members, str):
        given = list(members)
        named = dict.fromkeys(given, 1) if all(isinstance(member, str) for member in given) else {}
        if not named or len(named) < len(given):
            raise ConfigError(
                f"the members of pool {pool!r} must be different names", name=pool, hint='members=["0", "1"]'
            )
    else:
        raise ConfigError(
            f"the members of a pool are a list of names, or a table of names and capacities, not {members!r}",
            name=pool,
        )
    if not 1 <= len(named) <= MOST:
        raise ConfigError(f"a pool has 1 to {MOST} members, not {len(named)}", name=pool)
    for member, capacity in named.items():
        check_name(member)
        whole(capacity, f"the capacity of member {member!r}", pool)
    return named


def check_within(within: object, members: Mapping[str, int], pool: str) -> Mapping[str, str]:
    """For each member that lies within another one, that other one.

    Raises:
        ConfigError: ``within`` is no table of members, or members within another exceed its capacity.
    """
    if not isinstance(within, Mapping):
        raise ConfigError(
            f"within must be a table of members, not {within!r}", name=pool, hint='within={"slice": "card"}'
        )
    inside = {**within}
    for member, around in inside.items():
        for name in (member, around):
            if name not in members:
                raise ConfigError(f"pool {pool!r} has no member {name!r}, which within names", name=pool)
        if around in inside or around == member:
            raise ConfigError(
                f"member {around!r} of pool {pool!r} has members within it,"
                " so it cannot stand within one itself",
                name=pool,
            )
    for around in set(inside.values()):
        sum_ = sum(members[member] for member in inside if inside[member] == around)
        if sum_ > members[around]:
            raise ConfigError(
                f"the members within {around!r} of pool {pool!r} have a capacity of {sum_} together,"
                f" and {around!r} has {members[around]}",
                name=pool,
            )
    return inside


def check_growth(name: str, claims: Sequence[ClaimInfo], capacity: int) -> None:
    """Refuse a capacity that leaves room beside a claim for a whole member, held or waiting.

    A claim for the whole member weighs its whole capacity. A claim of at least the present capacity counts as
    one, unless several are held at once: they were granted as shares, before the member was made smaller.

    Raises:
        ConfigError: Such a claim is in the queue; ``holder`` has it.
    """
    waiting = ("WAITING", "OFFERED")
    holders = sum(claim.state not in waiting for claim in claims)
    for claim in claims:
        held = claim.state not in waiting
        if claim.capacity <= claim.weight < capacity and (not held or holders == 1):
            how = "held whole by" if held else "waited for, whole, by"
            end = "it is released" if held else "that claim is granted and released, or withdrawn"
            raise ConfigError(
                f"{name!r} is {how} {claim.owner} (claim {claim.claim_id}), and a capacity of {capacity}"
                f" would let another one in beside that claim, which weighs {claim.weight}",
                name=name,
                holder=claim,
                hint=f"wait until {end}, then resize it",
            )


def whole(value: object, what: str, name: str) -> int:
    """Check a capacity or a number of permits.

    Raises:
        ConfigError: The value is not a whole number from 1 to :data:`~lockkit.store.queue.RW_CAPACITY`.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= RW_CAPACITY:
        raise ConfigError(f"{what} must be a whole number from 1 to {RW_CAPACITY}, not {value!r}", name=name)
    return value


def fitting_members(
    members: Mapping[str, int], count: int, each: int | None, pool: str, *, among: Sequence[str] | None = None
) -> Mapping[str, int]:
    """The members that a request may take, and how much of each.

    Args:
        members: The members of the pool and the capacity of each.
        count: The number of members that the request wants.
        each: How much of each member's capacity it takes; None for whole members.
        pool: The name of the pool.
        among: The members that will do; None for all.

    Raises:
        ConfigError: A number is not a whole one, or the request can never be met.
    """
    whole(count, "count", pool)
    if each is not None:
        whole(each, "each", pool)
    fits = {
        member: members[member] if each is None else each
        for member in (members if among is None else among)
        if each is None or each <= members[member]
    }
    if len(fits) < count:
        share = "" if each is None else f" with room for {each}"
        found = f"{len(fits)} member{'' if len(fits) == 1 else 's'}{share}"
        where = "" if among is None else " among those that will do"
        raise ConfigError(
            f"pool {pool!r} has only {found}{where}, so a request for {count} can never be met",
            name=pool,
            hint="ask for less",
        )
    return fits
