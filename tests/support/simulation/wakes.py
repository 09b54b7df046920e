"""Messages that a server publishes, delivered when the simulation says so, not when a thread gets to it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.simulation.resp import Cut, values

__all__ = ["Published"]

_PATIENCE = 30.0


@dataclass(slots=True, eq=False)
class _Watch:
    """One waiter's."""

    token: str
    wake: Callable[[], None]
    watches: dict[int, _Watch]

    def close(self) -> None:
        self.watches.pop(id(self), None)


class Published:
    """Everything that is published on a server, for the waiters of all simulated clients.

    A message carries a fence, on the channel of one client. A message without a watch is kept for the next
    watch, as the store keeps it.
    """

    def __init__(self, server: Path) -> None:
        self._line = socket.socket(socket.AF_UNIX)
        self._line.settimeout(_PATIENCE)
        self._line.connect(str(server))
        self._tokens: dict[tuple[str, int], set[str]] = {}
        self._watches: dict[int, _Watch] = {}
        self._early: set[str] = set()
        self._line.sendall(b"*2\r\n$10\r\nPSUBSCRIBE\r\n$1\r\n*\r\n")
        self._up_to(b"psubscribe")

    def know(self, channel: str, fence: int, token: str) -> None:
        """Note the token of the claim that is called by this fence, on this channel."""
        self._tokens.setdefault((channel, fence), set()).add(token)

    def watch(self, token: str, wake: Callable[[], None]) -> _Watch:
        """Call ``wake`` whenever that claim is told to ask, and at once if it was before."""
        watch = _Watch(token, wake, self._watches)
        self._watches[id(watch)] = watch
        if token in self._early:
            self._early.discard(token)
            wake()
        return watch

    def knock(self) -> None:
        """Ask for what was published up to now: the server sends it before it answers a PING."""
        self._line.sendall(b"*1\r\n$4\r\nPING\r\n")

    def deliver(self) -> None:
        """Wake for all that was published up to the knock."""
        for message in self._up_to(b"pong"):
            _, _, channel, fence = message
            for token in sorted(self._tokens.get((channel.decode(), int(fence)), ())):
                heard = [watch for watch in self._watches.values() if watch.token == token]
                for watch in heard:
                    watch.wake()
                if not heard:
                    self._early.add(token)

    def ring_all(self) -> None:
        """A subscription that was interrupted stands again: everybody is told to look."""
        for watch in list(self._watches.values()):
            watch.wake()

    def close(self) -> None:
        """Hear no more."""
        self._line.close()

    def _up_to(self, last: bytes) -> list[Any]:
        """All that comes before an answer of that kind."""
        came = b""
        while True:
            came += self._line.recv(1 << 16)
            try:
                messages = values(came)
            except Cut:
                continue
            if messages and messages[-1][0] == last:
                return messages[:-1]
