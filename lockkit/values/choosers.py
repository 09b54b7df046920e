"""Choosers: objects of the user that tell which members of a pool will do now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from lockkit.lib.namedtuples import NamedTuple

__all__ = ["EVERY", "Choice", "Chooser"]

EVERY = 2.0
"""Seconds after which a chooser is asked again, as a rule."""
_NONE: Mapping[str, str] = {}


class Choice(NamedTuple):
    """The answer of a chooser.

    Attributes:
        order: The members that will do now, the best first.
        refused: Why each other member will not do, in a few words, by member. A member that the request holds already, and that is named
            here, is given back.
        never: Why the request can never be met; None if it can. It then ends with :class:`~lockkit.errors.ConfigError` at once.
        outside: Whether the request is to leave the gate, because it could not be met now even if all held members came free: because a
            person must first put something right, for instance. It gives back what it has, lets others pass, and queues again once a
            choice says otherwise.
    """

    order: Sequence[str]
    refused: Mapping[str, str] = _NONE
    never: str | None = None
    outside: bool = False


class Chooser(Protocol):
    """Tells which members of a pool will do, while a request for some of them stands at the gate.

    A chooser knows what the store does not: that somebody uses a member without a lock, for instance. Its methods are called on another thread
    than that which acquires, never two at a time for one request, and may block for a while: for up to 30 s, or as long as the request
    has time. What they raise ends the request, and nothing of it is left.

    Errors call a chooser that gives no answer in time by its attribute ``called``, if it has one: ``"the camera"``.

    Attributes:
        every: Seconds after which a request that still waits asks again.
    """

    every: float

    def choose(self, held: Sequence[str], /) -> Choice:
        """Tell which members will do now, of those that the request names. ``held`` are the members that it has got already."""

    def judge(self, member: str, /) -> str | None:
        """Look at a member that was granted just now: None if it is as it should be, else the reason why it is not.

        A request for several calls it once more for those that it got first, right before all are handed over.

        The member is given back then, and left out until :meth:`choose` names it again.
        """
