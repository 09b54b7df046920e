"""A handler for kazoo clients of tests: it waits for sockets without a descriptor of its own."""

from __future__ import annotations

from collections.abc import Sequence
from selectors import EVENT_READ, EVENT_WRITE, PollSelector
from typing import Any

from kazoo.handlers.threading import SequentialThreadingHandler

__all__ = ["Polling"]


class Polling(SequentialThreadingHandler):  # type: ignore[misc]
    """kazoo's handler, with as many descriptors at each moment.

    kazoo's own version opens an epoll object for each wait, which a test that counts the descriptors of its
    process would count at one moment and miss at another.
    """

    def select(
        self, read: Sequence[Any], write: Sequence[Any], _: Sequence[Any], timeout: float | None = None
    ) -> tuple[list[Any], list[Any], list[Any]]:
        """Wait until one can be read or written."""
        with PollSelector() as selector:
            for event, sockets in ((EVENT_READ, read), (EVENT_WRITE, write)):
                for each in sockets:
                    selector.register(each, event)
            ready = [key.fileobj for key, _ in selector.select(timeout)]
        return [each for each in read if each in ready], [each for each in write if each in ready], []
