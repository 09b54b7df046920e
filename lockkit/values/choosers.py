"""Choosers: objects of the user that say which members of a pool will do now."""

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
        refused: Why each other member will not do, in a few words, by member. One already held is given back.
        never: Why the request can never be met, so that it ends with :class:`~lockkit.errors.ConfigError`;
            None if it can be.
        outside: Whether the request leaves the gate, because it could not be met even if all members were
            free, for instance until a person fixes something. The request gives back its members, and queues
            again once a choice says otherwise.
    """

    order: Sequence[str]
    refused: Mapping[str, str] = _NONE
    never: str | None = None
    outside: bool = False


class Chooser(Protocol):
    """Says which members of a pool will do, while a request for some of them is at the gate.

    A chooser knows what the store does not: that somebody uses a member without a lock, for instance. Its
    methods are called on another thread, never two at a time for one request, and may block for up to 30 s,
    or as long as the request has time. Their errors end the request, and nothing of it is left.

    If a chooser does not answer in time, errors use its attribute ``called``, if any: ``"the camera"``.

    Attributes:
        every: Seconds after which a request that still waits asks again.
    """

    every: float

    def choose(self, held: Sequence[str], /) -> Choice:
        """The members that will do now, of those that the request names; it already has ``held``."""

    def judge(self, member: str, /) -> str | None:
        """Look at a member just granted: None if it is as it should be, else the reason why it is not.

        The member is then given back, and left out until :meth:`choose` names it again. A request for several
        calls this again for the members that it got first, right before all are handed over.
        """
