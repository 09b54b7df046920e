"""Exchanges: the frequent calls of a network store, as generators without I/O.

An exchange yields steps: a packed request for a route, a pause, a connection to make. A performer does each
step and sends the result back. It throws the error of a failed step into the exchange, where the store's own
table of failures is. :mod:`lockkit.store.performing` performs exchanges on blocking connections,
:mod:`lockkit.store.performing_aio` on those of an event loop.

A route names a server, or a fresh connection to a server. A performer chooses a connection by the route
alone. The exchange itself handles answers about routes (a Cluster's MOVED, an expired login, a replica in
place of a primary): it then sends to another route, within the same time limit.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    from lockkit.lib.bell import Bell

from lockkit.lib.namedtuples import NamedTuple

__all__ = [
    "Await",
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
    "in_parallel",
]

T = TypeVar("T")

Route: TypeAlias = Hashable
"""The server that a request is for, in a form that the store chooses."""
Reply: TypeAlias = Any
"""One reply, as the parser of the store's protocol returns it."""


class Send(NamedTuple):
    """Send a request and read its replies. The result is the sequence of replies.

    The performer takes a free connection to the route, or opens one. After an error it resets the
    connection, so that no later call reads a wrong reply, and throws the error into the exchange.

    Attributes:
        to: The route.
        packed: The bytes of the request.
        end: When to give up, on ``time.monotonic()``.
        replies: How many replies the server sends.
        keep: Decides by the replies whether the connection may be used again. None: always.
    """

    to: Route
    packed: bytes
    end: float
    replies: int = 1
    keep: Callable[[Sequence[Reply]], bool] | None = None


class Connect(NamedTuple):
    """Make a connection, and send nothing on it. The result is the connection.

    Only the opening of a route yields this step and :class:`Introduce`. A failure resets the connection.

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
    """Close the connections to a route whose server has changed; those in use, when their call ends."""

    to: Route


class Pause(NamedTuple):
    """Do nothing for some seconds."""

    seconds: float


class Await(NamedTuple):
    """Wait until a bell rings, but no longer than some seconds. The result is whether it rang."""

    bell: Bell
    seconds: float


class Start(NamedTuple):
    """Start another exchange. This one does not wait for it.

    Attributes:
        make: Makes the exchange.
        name: The name of its thread or task, which says what it is for.
    """

    make: Callable[[], Exchange[None]]
    name: str


class Together(NamedTuple):
    """Perform other exchanges at the same time, and wait until all are over. There is no result.

    The exchanges store their results for this one to read, and handle errors themselves: an error that any
    but the first one raises is not reported.

    Attributes:
        make: Each makes one of the exchanges. This exchange always waits for the first of them.
        name: The name of the threads or tasks of the others, which says what they are for.
        end: When to stop waiting for the others, on ``time.monotonic()``. They then continue by themselves.
    """

    make: Sequence[Callable[[], Exchange[None]]]
    name: str
    end: float


Step: TypeAlias = Send | Connect | Introduce | Drop | Pause | Await | Start | Together
Exchange: TypeAlias = Generator[Step, Any, T]


def in_parallel(
    items: list[T], work: Callable[[T], Exchange[None]], most: int, name: str, end: float
) -> Exchange[None]:
    """Perform an exchange for each item, in order, and wait for all of them, but not beyond an end.

    Args:
        items: What to do. The list is empty afterwards.
        work: Makes the exchange for an item, which handles errors itself.
        most: Exchanges at the same time.
        name: The name of their threads or tasks.
        end: When to stop waiting, on ``time.monotonic()``, though never before the first item is done.
    """
    if not items:
        return
    first = items.pop(0)

    def others() -> Exchange[None]:
        while items:
            try:
                item = items.pop(0)
            except IndexError:  # another thread was faster
                return
            yield from work(item)

    def own() -> Exchange[None]:
        yield from work(first)
        yield from others()

    yield Together([own, *[others] * min(most - 1, len(items))], name, end)


class Parser(Protocol):
    """The parser of the replies on one connection, for performers that read from the socket themselves."""

    @property
    def between(self) -> bool:
        """Whether every byte so far belongs to a whole reply."""

    def feed(self, data: bytes) -> Sequence[Reply]:
        """Take in the next bytes, and return the replies that they complete.

        Raises:
            Exception: The reply is not of the store's protocol. The connection cannot be used any more.
        """

    def cut_short(self, replies: Sequence[Reply], error: OSError) -> Exception:
        """The error to raise if the connection or the time ended after too few replies: one may say why."""
