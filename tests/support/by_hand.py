"""An exchange of a store that a test performs by hand, without connections."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Self

__all__ = ["ByHand"]


class ByHand:
    """An exchange, at the step that it waits for.

    Attributes:
        step: The step; None at the end.
        steps: All steps so far.
        result: The result of the exchange, at its end.
    """

    def __init__(self, exchange: Generator[Any, Any, Any]) -> None:
        self._exchange = exchange
        self.step: Any = next(exchange)
        self.steps = [self.step]
        self.result: Any = None

    def hear(self, answer: object) -> Any:
        """Send the answer to the step. Returns the next step, or None at the end."""
        return self._go_on(self._exchange.send, answer)

    def fail(self, error: BaseException) -> Any:
        """Let the step raise an error. Returns the next step, or None at the end."""
        return self._go_on(self._exchange.throw, error)

    def __call__(self, *answers: object) -> Self:
        """Send answers, or let the step raise those that are exceptions, one a step."""
        for answer in answers:
            if isinstance(answer, BaseException):
                self.fail(answer)
            else:
                self.hear(answer)
        return self

    def _go_on(self, how: Callable[[Any], Any], what: object) -> Any:
        try:
            self.step = how(what)
            self.steps.append(self.step)
        except StopIteration as done:
            self.step, self.result = None, done.value
        return self.step
