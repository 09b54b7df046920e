"""The watch of a drain's mark, which spares an acquire the read of the mark.

A server reports a change to a watch before it answers any request, on the same connection, whose answer comes from a state with that
change (ZooKeeper Programmer's Guide, "What ZooKeeper Guarantees about Watches": watches are ordered with respect to other events, other
watches and asynchronous replies). So when an answer has been read and a watch that was there before has reported nothing, the namespace
was not drained at the state which that answer shows.
"""

from __future__ import annotations

from typing import Any

from lockkit_zookeeper.connecting import AtOnce
from lockkit_zookeeper.connection import Connection

__all__ = ["DrainWatch"]


class DrainWatch(AtOnce):
    """A watch for a mark that is absent.

    It is good for one connection: kazoo reports a cut to every watch before it connects again.
    """

    __slots__ = ("_connection", "_reported")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._reported = False

    def __call__(self, _: Any) -> None:
        """Note the event, whatever it is."""
        self._reported = True

    @property
    def stands(self) -> bool:
        """True if nothing was reported before any of the answers that have been read; the connection's own thread notes the reports.

        A connection that is closed or ended reports nothing any more.
        """
        return not self._reported and self._connection.up
