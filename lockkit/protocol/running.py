"""Run a protocol generator effect by effect, until it waits or ends.

The threads of a client, the tests that step through the protocol, and the simulation all use this module.
They differ only in how they perform effects other than requests, and in when a request is answered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, Generic, TypeVar

from lockkit.protocol.effects import (
    MAY_BLOCK,
    REQUESTS,
    WAITS,
    Abandon,
    Acquire,
    Choose,
    Effect,
    EmergencyRelease,
    Extend,
    Inspect,
    Judge,
    ListNames,
    Release,
    RemoveMany,
    Renew,
    Request,
)
from lockkit.store.spi import Backend

__all__ = ["Running", "ask", "ask_chooser", "run", "to_its_end"]

R = TypeVar("R")


def ask(store: Backend, request: Request) -> object:
    """Send a request to a store, and wait for the answer.

    Raises:
        Refused, Unknown: The store gave no answer.
    """
    if isinstance(request, Acquire):
        return store.acquire(request.claim, request.create, request.budget)
    if isinstance(request, Release):
        return store.release(request.claim, request.budget, how=request.how)
    if isinstance(request, Renew):
        return store.renew(request.beats, request.budget)
    if isinstance(request, Abandon):
        return store.abandon(request.claim, request.budget, how=request.how)
    if isinstance(request, EmergencyRelease):
        return store.emergency_release(request.claim, request.budget, how=request.how)
    if isinstance(request, RemoveMany):
        assert store.extras.remove_many is not None
        return store.extras.remove_many(request.removals, request.budget)
    if isinstance(request, Inspect):
        return store.inspect(request.name, request.budget)
    if isinstance(request, Extend):
        return store.extend(request.claim, request.fence, request.claim.terms.ttl, request.budget)
    if isinstance(request, ListNames):
        return store.names("", request.budget)
    return store.annotate(request.name, request.claim_id, request.patch, request.budget)


def ask_chooser(effect: Choose | Judge) -> object:
    """Ask the chooser of a request. May block as long as the chooser does, and raises what it raises."""
    if isinstance(effect, Choose):
        return effect.chooser.choose(effect.held)
    return effect.chooser.judge(effect.member)


def to_its_end(
    generator: Generator[Effect, Any, R], store: Backend, perform: Callable[[Effect], object]
) -> R:
    """Perform all effects of a generator, including those that wait.

    The result of each effect, or the exception that the effect raises, goes back into the generator.

    Args:
        generator: A generator of the protocol.
        store: The store that requests go to.
        perform: Performs all other effects.

    Raises:
        BaseException: Whatever the generator raises.
    """
    try:
        effect = next(generator)
        while True:
            try:
                result = ask(store, effect) if isinstance(effect, REQUESTS) else perform(effect)
            except BaseException as error:
                effect = generator.throw(error)
            else:
                effect = generator.send(result)
    except StopIteration as stop:
        value: R = stop.value
        return value


async def run(
    generator: Generator[Effect, Any, R],
    wait: Callable[[Effect], Awaitable[object]],
    perform: Callable[[Effect], object],
) -> R:
    """Perform all effects of a generator in a coroutine, as :func:`to_its_end` does in a thread.

    Args:
        generator: A generator of the protocol.
        wait: Performs requests, and effects that may block.
        perform: Performs all other effects.

    Raises:
        BaseException: Whatever the generator raises.
    """
    try:
        effect = next(generator)
        while True:
            try:
                result = await wait(effect) if isinstance(effect, MAY_BLOCK) else perform(effect)
            except BaseException as error:
                effect = generator.throw(error)
            else:
                effect = generator.send(result)
    except StopIteration as stop:
        value: R = stop.value
        return value


class Running(Generic[R]):
    """A generator at one of its effects.

    Attributes:
        effect: The effect that the generator asks for; None once the generator has ended.
        value: The value that the generator returned.
    """

    __slots__ = ("_generator", "effect", "value")

    def __init__(self, generator: Generator[Effect, Any, R]) -> None:
        self._generator = generator
        self.effect: Effect | None = None
        self.value: R | None = None

    def begin(self) -> None:
        """Run to the first effect. This and the two methods below raise what the generator raises."""
        self.answered(None)

    def answered(self, result: object = None) -> None:
        """Run on after the effect was performed with this result."""
        self.effect = None
        try:
            self.effect = self._generator.send(result)
        except StopIteration as stop:
            self.value = stop.value

    def failed(self, error: BaseException) -> None:
        """Run on after the effect raised this error."""
        self.effect = None
        try:
            self.effect = self._generator.throw(error)
        except StopIteration as stop:
            self.value = stop.value
        finally:
            del error  # if it is raised again, it refers to this frame, and must not be kept by it

    def until_it_waits(
        self, perform: Callable[[Effect], object], waits: tuple[type[Any], ...] = WAITS
    ) -> None:
        """Perform effects up to the next one of those that wait, or to the end."""
        while self.effect is not None and not isinstance(self.effect, waits):
            try:
                result = perform(self.effect)
            except BaseException as error:
                self.failed(error)
            else:
                self.answered(result)
