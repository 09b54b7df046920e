"""A waiter whose turn a test decides, on a store whose waiter may listen: see ``Extras.listen``."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, Self

from lockkit.lib.bell import Bell
from lockkit.store.spi import Backend, Queued
from lockkit.testing.claims import claim, take

__all__ = ["AT_ONCE", "LONG", "Turn"]

LONG = 30.0
"""Seconds within which everything ends."""
AT_ONCE = 15.0
"""Seconds within which a waiter is woken, who listens here for longer and does not ask again by itself."""


class Turn:
    """A waiter behind a holder, each of a claim of its own.

    Attributes:
        claim: The claim that waits.
        bell: The bell of the thread that waits.
        reader: What the thread waits with, once it listens.
        answer: What its wait returned; None before.
    """

    reader: Any

    def __init__(self, store: Backend, name: str = "a") -> None:
        self.store = store
        self.name = name
        self.held, _ = take(store, name)
        self.claim = claim(name)
        self.bell = Bell()
        answer = store.acquire(self.claim, True, 2.0)
        assert isinstance(answer, Queued)
        self.blockers = answer.blockers
        self.answer: Any = None

    def come(self) -> None:
        """Release the claim of the holder."""
        self.store.release(self.held, 2.0)

    @contextlib.contextmanager
    def listening(self, seconds: float = LONG) -> Iterator[Self]:
        """Have a thread wait for the turn; the end of the block rings its bell and ends the thread."""
        listen = self.store.extras.listen
        assert listen is not None
        reader = self.reader = listen(self.name, self.blockers, self.bell.ring, self.claim)

        def wait() -> None:
            with contextlib.suppress(KeyboardInterrupt):
                self.answer = reader.wait(self.bell, seconds)

        thread = self.thread = threading.Thread(target=wait)
        thread.start()
        try:
            yield self
        finally:
            self.bell.ring()
            thread.join(LONG)
            self.bell.rung()
            reader.close()
            assert not thread.is_alive()

    def woken(self) -> Any:
        """The result of the wait; False if it has not ended soon."""
        self.thread.join(AT_ONCE)
        return not self.thread.is_alive() and self.answer

    def reads(self) -> bool:
        """Whether the waiting thread is the one that listens for all."""
        raise NotImplementedError
