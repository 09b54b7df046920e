"""Sums over the past: for how long each user held, held idle, and waited, by lock."""

from __future__ import annotations

from lockkit.lib.namedtuples import NamedTuple
from lockkit.notes.members import in_pool
from lockkit.observe.past import History, StoreKey

__all__ = ["LockUse", "card_of", "uses"]


class LockUse(NamedTuple):
    """The use of one lock by one user in a period.

    Attributes:
        card: The UUID of the GPU behind the lock; None for another lock.
        holds: Holds with a part in the period.
        open: Holds among them without a known end: their process ended silently; their time does not count.
        held: Seconds of all holds together.
        idle: Seconds for which a GPU was reported idle while it was held. It may have been idle for longer.
        waited: Seconds of all waits, also those in vain.
        in_vain: Attempts that ended without a hold.
    """

    key: StoreKey
    name: str
    user: str
    card: str | None = None
    holds: int = 0
    open: int = 0
    held: float = 0.0
    idle: float = 0.0
    waited: float = 0.0
    in_vain: int = 0


def uses(history: History, since: float, until: float) -> list[LockUse]:
    """Add up a period. Only the parts within it count; a hold that goes on counts to the period's end.

    Args:
        history: The past.
        since: Seconds since the epoch.
        until: Seconds since the epoch.

    Returns:
        One entry for each user of each lock, those who held for longest first.
    """
    found: dict[tuple[StoreKey, str, str], LockUse] = {}
    for hold in history.holds:
        place = hold.key, hold.name, hold.owner.user
        use = found.get(place) or LockUse(*place, card_of(hold.name))
        waited = _within(hold.began - hold.waited, hold.began, since, until)
        ended = until if hold.ended is None and not hold.end else hold.ended
        if ended is not None and (ended < since or hold.began > until):
            continue
        held = 0.0 if ended is None else _within(hold.began, ended, since, until)
        found[place] = use._replace(
            holds=use.holds + 1,
            open=use.open + (ended is None),
            held=use.held + held,
            idle=use.idle + min(hold.idle, held),
            waited=use.waited + waited,
        )
    for wait in history.waits:
        if since <= wait.ended <= until:
            place = wait.key, wait.name, wait.owner.user
            use = found.get(place) or LockUse(*place, card_of(wait.name))
            waited = _within(wait.ended - wait.waited, wait.ended, since, until)
            found[place] = use._replace(waited=use.waited + waited, in_vain=use.in_vain + 1)
    return sorted(found.values(), key=lambda use: (-use.held, -use.waited, use.name, use.user))


def card_of(name: str) -> str | None:
    """The UUID of the GPU behind a lock; None for another lock."""
    pool = in_pool(name)
    member = pool[1] if pool is not None else None
    return member if member is not None and member.startswith(("GPU-", "MIG-")) else None


def _within(began: float, ended: float, since: float, until: float) -> float:
    return max(0.0, min(ended, until) - max(began, since))
