"""The keys of a client's claims. A key is used again for the next claim on the name once it is certain to be free."""

from __future__ import annotations

import itertools

__all__ = ["RecycledKeys"]

_NAMES = 16_384
"""Names of which free keys are remembered."""
_KEPT = 64
"""Free keys of one name that are remembered. A name's history grows by what is forgotten, and that is all."""


class RecycledKeys:
    """The free keys of a client, by queue.

    Args:
        client: The client's name in keys; no other client has it.
    """

    def __init__(self, client: str) -> None:
        self._client = client.encode()
        self._numbers = itertools.count()
        self._free: dict[bytes, list[bytes]] = {}

    def take(self, queue: bytes) -> bytes:
        """Return a key in a queue that no claim of this client has or may still get."""
        free = self._free.get(queue)
        if free:
            try:
                return free.pop()
            except IndexError:  # another thread was faster
                pass
        return b"%s%s-%d" % (queue, self._client, next(self._numbers))

    def give_back(self, queue: bytes, key: bytes) -> None:
        """Take a key back. Nothing is stored under it, and no request under way will store anything there."""
        free = self._free.get(queue)
        if free is None:
            if len(self._free) >= _NAMES:
                self._free.clear()
            free = self._free.setdefault(queue, [])
        if len(free) < _KEPT:
            free.append(key)
