"""A drain, in the steps of :func:`lockkit.shared.draining.drain`, with all clients' steps in between."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from lockkit.values.names import claim_id

if TYPE_CHECKING:
    from support.simulation.world import World

__all__ = ["TURNED_AWAY", "Drains"]

_MARK = '{"v":1,"reason":"simulated"}'
TURNED_AWAY = "turn away"
"""The request with which a drain turns a waiter away, as a step of the story names it."""


class Drains:
    """The operator who drains.

    Attributes:
        marked: Whether the mark is set: from then on nobody is granted, until it is removed.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._left: list[Callable[[], None]] = []
        self.marked = False

    def begin(self) -> None:
        """Set the mark; what is left of the drain follows, step by step."""
        self._world.operate("set", _MARK, 1.0)
        self.marked = True
        self._left = [partial(self._look, name) for name in self._world.names]
        self._world.tell("operator: drain: the mark is set")

    def end(self) -> None:
        """Remove the mark. A drain that is not over goes on turning away."""
        self._world.operate("clear", _MARK, 1.0)
        self.marked = False
        self._world.tell("operator: undrain")

    @property
    def step(self) -> Callable[[], None] | None:
        """The next step of a drain that has begun; None once it has returned."""
        return self._step if self._left else None

    def _step(self) -> None:
        self._left.pop(0)()
        if not self._left:
            self._world.tell("operator: drain has returned")

    def _look(self, name: str) -> None:
        waiting = [row.token for row in self._world.store.rows(name) if row.state == "WAITING"]
        self._world.tell(f"operator: drain: {waiting} wait for {name}")
        self._left += [partial(self._turn_away, name, token) for token in waiting]

    def _turn_away(self, name: str, token: str) -> None:
        self._world.operating = TURNED_AWAY
        gone = self._world.operate("turn_away", name, claim_id(token), 1.0)
        self._world.tell(f"operator: drain: {token} {'is turned away' if gone else 'is left alone'}")
