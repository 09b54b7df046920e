"""Choosers of pools that say what a test says."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from lockkit.values.choosers import Choice

__all__ = ["Hangs", "Says"]


class Says:
    """A chooser whose answer is ``choice``.

    Attributes:
        choice: The answer. A test may change it.
        threads: The thread on which each call of :meth:`choose` came.
    """

    every = 0.02

    def __init__(self, *order: str, **refused: str) -> None:
        self.choice = Choice(order, refused)
        self.threads: list[threading.Thread] = []

    def choose(self, held: Sequence[str]) -> Choice:  # noqa: ARG002
        self.threads.append(threading.current_thread())
        return self.choice

    def judge(self, member: str) -> str | None:  # noqa: ARG002
        return None


class Hangs(Says):
    """A chooser that hangs until ``go`` is set."""

    def __init__(self, *order: str) -> None:
        super().__init__(*order)
        self.go = threading.Event()

    def choose(self, held: Sequence[str]) -> Choice:
        super().choose(held)
        self.go.wait(30)
        return self.choice
