"""The errors of a hold that is not valid: it may have lapsed, was released, or belongs to another process."""

from __future__ import annotations

from lockkit.errors import LeaseLost, NotHeld
from lockkit.facts import LOSSES
from lockkit.protocol.hold import Hold

__all__ = ["invalid", "lapsed"]


def invalid(hold: Hold, *, left: bool = False) -> LeaseLost | NotHeld:
    """The error that explains why a hold is not valid.

    Args:
        hold: The hold.
        left: Whether the error is for a level that was released, whatever the hold does.
    """
    if not hold.origin.is_here():
        text = (
            f"the lease of {hold.name!r} belongs to process {hold.origin.pid}; in a forked child it is inert"
        )
        return NotHeld(text, name=hold.name, hint="acquire in the child")
    if (hold.ended or left) and not hold.lost_why and (hold.report is None or hold.report.outcome != "LOST"):
        return NotHeld(f"the lease of {hold.name!r} was released", name=hold.name, hint="acquire again")
    return lapsed(hold, "its ttl ran out")


def lapsed(hold: Hold, otherwise: str) -> LeaseLost:
    """The error for a hold that may have lapsed.

    Args:
        hold: The hold that an answer or the time has ended.
        otherwise: The reason to give where the hold records none.
    """
    return LeaseLost(
        f"the hold of {hold.name!r} (fence {hold.fence}) may have lapsed: "
        f"{LOSSES.get(hold.lost_why, hold.lost_why) or otherwise}",
        name=hold.name,
        hint="stop the guarded work; acquire again for a new fence",
    )
