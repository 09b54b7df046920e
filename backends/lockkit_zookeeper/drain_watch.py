"""The watch of a drain's mark, which spares an acquire the read of the mark.

A server reports a change to a watch before it answers any request, on the same connection, whose answer comes
from a state with that change (ZooKeeper Programmer's Guide, "What ZooKeeper Guarantees about Watches":
watches are ordered with respect to other events, other watches and asynchronous replies). So if an older
watch has reported nothing when an answer is read, the namespace was not drained at the answer's state.
"""

from __future__ import annotations

from typing import Any

from lockkit_zookeeper.connecting import AtOnce
from lockkit_zookeeper.connection import Connection

__all__ = ["DrainWatch"]


class DrainWatch(AtOnce):
    """A watch for an absent mark, for one connection: kazoo reports a cut to it before it connects again."""

    __slots__ = ("_connection", "_reported")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._reported = False

    def __call__(self, _: Any) -> None:
        """Note the event, whatever it is."""
        self._reported = True

    @property
    def stands(self) -> bool:
        """Whether the connection is up and nothing was reported before any of the answers that were read."""
        return not self._reported and self._connection.up
