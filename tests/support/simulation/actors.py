"""Actors that drive protocol generators in the simulation, one effect a step; the thread driver runs on."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from lockkit.protocol import effects
from lockkit.protocol.effects import Effect
from lockkit.protocol.running import Running
from support.simulation.network import Request

if TYPE_CHECKING:
    from support.simulation.client import Client

__all__ = ["Actor", "Interrupt"]


class Interrupt(KeyboardInterrupt):
    """A simulated Ctrl-C or cancellation."""


class Actor:
    """One thread of a client: at most one generator, at one effect, with at most one request under way.

    Attributes:
        request: Sent, and not answered yet.
        fuse: Readings of the clock until an :class:`Interrupt` hits the generator itself; None for never.
    """

    def __init__(self, client: Client, label: str) -> None:
        self.client = client
        self.label = label
        self.running: Running[Any] | None = None
        self.request: Request | None = None
        self.fuse: int | None = None

    def now(self) -> float:
        """The generator's clock. An interrupt that lands between two bytecodes is raised from here."""
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                self.fuse = None
                self.client.world.tell(f"{self.label}: interrupted inside the protocol's own code")
                raise Interrupt
        return self.client.world.clock.now()

    @property
    def effect(self) -> Effect | None:
        """The effect that the generator asks for; None while nothing runs."""
        return None if self.running is None else self.running.effect

    def begin(self, generator: Generator[Effect, Any, Any]) -> None:
        """Start a generator, up to its first effect."""
        self.running = Running(generator)
        self._step(self.running.begin)

    def answered(self, result: Any) -> None:
        """The effect is done."""
        self.request = None
        running = self.running
        assert running is not None
        self._step(lambda: running.answered(result))

    def failed(self, error: BaseException) -> None:
        """The effect ended in an exception."""
        self.request = None
        running = self.running
        assert running is not None
        self._step(lambda: running.failed(error))

    def _step(self, resume: Callable[[], None]) -> None:
        running = self.running
        assert running is not None
        try:
            resume()
        except BaseException as error:
            self.running = None
            self.broke(error)
        else:
            if running.effect is None:
                self.running = None
                self.finished(running.value)

    def finished(self, value: Any) -> None:
        """The generator returned."""
        raise NotImplementedError

    def broke(self, error: BaseException) -> None:
        """The generator raised."""
        raise NotImplementedError

    def send(self, what: effects.Request) -> Request:
        """Put a request on its way."""
        request = self.client.world.send(self, what)
        self.request = request
        return request
