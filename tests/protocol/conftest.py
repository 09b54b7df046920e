"""A generator of the protocol under direct control: a test answers each effect by hand."""

from __future__ import annotations

import pytest

from support.simulation.clock import VirtualClock


class Driven:
    """One generator, at the effect that it waits for; ``result`` or ``raised`` once it is through."""

    def __init__(self, generator):
        self.generator = generator
        self.effect = self.result = self.raised = None
        self.done = False
        self._go(lambda: next(generator))

    def answer(self, value=None):
        self._go(lambda: self.generator.send(value))
        return self

    def fail(self, error):
        self._go(lambda: self.generator.throw(error))
        return self

    def until(self, *kinds):
        """Answer None to everything up to an effect of one of these kinds."""
        while not self.done:
            if isinstance(self.effect, kinds):
                return self.effect
            self.answer(None)
        raise AssertionError(f"none of {kinds} came")

    def kinds(self):
        """Answer each effect with None, to the end, and return the names of the effects."""
        kinds = []
        while not self.done:
            kinds.append(type(self.effect).__name__)
            self.answer(None)
        return kinds

    def _go(self, step):
        try:
            self.effect = step()
        except StopIteration as stop:
            self.effect, self.result, self.done = None, stop.value, True
        except BaseException as error:
            self.effect, self.raised, self.done = None, error, True


@pytest.fixture
def driven():
    return Driven


@pytest.fixture
def clock():
    return VirtualClock()
