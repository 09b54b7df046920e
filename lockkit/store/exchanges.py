"""Exchanges: the hot calls of a network store, as generators without I/O.

An exchange yields steps: a packed request for a route, a pause, a connection to be made. A performer does each step, sends the
result back, and throws the error of a failed step into the exchange, where the store's own table of failures stands. The same
exchange is performed on blocking connections (:mod:`lockkit.store.performing`) and can be performed on those of an event loop.

A route names a server, or a connection of its own to it (a fresh one), and is all that a performer looks at to choose a
connection. What an answer says of routes (a Cluster's MOVED, an expired login, a replica in place of a primary) is decided in the
exchange, which then sends to another route, within the same end.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

__all__ = [
    "Connect",
    "Drop",
    "Exchange",
    "Introduce",
    "Parser",
    "Pause",
    "Reply",
    "Route",
    "Send",
    "Start",
    "Step",
    "Together",
]

T = TypeVar("T")

Route: TypeAlias = Hashable
"""The server that a request is for, by the store's own description."""
Reply: TypeAlias = Any
"""One reply, as the parser of the store's protocol returns it."""


class Send(NamedTuple):
    """Send a request and read its replies. The result is the sequence of replies.

    The performer takes a free connection to the route, or has one opened. After an error the connection is reset, so that no
    later call reads a reply that is not its own, and the error is thrown into the exchange as it is.

    Attributes:
        to: The route.
        packed: The bytes of the request.
        end: When to give up, on ``time.monotonic()``.
        replies: How many replies the server sends.
        keep: Whether the connection may be used again, by its replies. Always, by default.
    """

    to: Route
    packed: bytes
    end: float
    replies: int = 1
    keep: Callable[[Sequence[Reply]], bool] | None = None


class Connect(NamedTuple):
    """Make a connection on which nothing was said yet. The result is the connection.

    Only the exchange that opens a route yields this step and :class:`Introduce`. If it raises, the connection is reset.

    Attributes:
        place: Host and port, or the path of a socket.
        end: When to give up, on ``time.monotonic()``.
    """

    place: tuple[str, int] | str
    end: float


class Introduce(NamedTuple):
    """Send the first request on a connection that was just made. The result is the sequence of replies.

    Attributes:
        connection: The result of :class:`Connect`.
        packed: The bytes of the request.
        end: When to give up, on ``time.monotonic()``.
        replies: How many replies the server sends.
    """

    connection: Any
    packed: bytes
    end: float
    replies: int = 1


class Drop(NamedTuple):
    """Close the free connections to a route: its server is no longer what it was."""

    to: Route


class Pause(NamedTuple):
    """Do nothing for some seconds."""

    seconds: float


class Start(NamedTuple):
    """Perform another exchange apart from this one, which does not wait for it.

    Attributes:
        make: Makes the exchange.
        name: What it is for: the name of its thread or task.
    """

    make: Callable[[], Exchange[None]]
    name: str


class Together(NamedTuple):
    """Perform other exchanges at the same time, and wait until all are over. There is no result.

    The exchanges leave their results where this one finds them, and deal with errors themselves: an error that leaves any but the
    first is reported nowhere.

    Attributes:
        make: Each makes one of the exchanges. The first is waited for in any case.
        name: What they are for: the name of the threads or tasks of the others.
        end: When to wait no longer for the others, on ``time.monotonic()``. They then go on by themselves.
    """

    make: Sequence[Callable[[], Exchange[None]]]
    name: str
    end: float


Step: TypeAlias = Send | Connect | Introduce | Drop | Pause | Start | Together
Exchange: TypeAlias = Generator[Step, Any, T]


class Parser(Protocol):
    """The parser of what a server sends on one connection; for performers that read for themselves."""

    def feed(self, data: bytes) -> Sequence[Reply]:
        """Take in the next bytes, and return the replies that they complete.

        Raises:
            Exception: The server does not speak the store's protocol. The connection is of no use any more.
        """
