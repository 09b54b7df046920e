"""Limits that uvicorn lacks: how slow the peer of a connection may be, and how many connections there may be.

A peer that sends half a request, or does not read its answer, would keep a descriptor for ever; uvicorn's
time limit starts with the first answer. Here every connection is checked once a second. At the limit, a new
one replaces those longest without a complete request, so that no peer with many of them shuts others out.
"""

from __future__ import annotations

import contextlib
import logging
import resource
import struct
from socket import SO_LINGER, SOL_SOCKET
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from lockkit.lib.namedtuples import NamedTuple

if TYPE_CHECKING:
    import asyncio

    from uvicorn.protocols.http.h11_impl import RequestResponseCycle

__all__ = ["LimitedConnection", "LimitedConnections", "Limits", "descriptors"]

_log = logging.getLogger("lockkit.server")

_WANTED: Final = 4096
"""Descriptors that the process requests, if it may have that many."""
_PART: Final = 10
"""A tenth of all connections make room at once, so that a flood of new ones costs little."""
_NO_LINGERING: Final = struct.pack("ii", 1, 0)
_QUIET: Final = 60.0
"""Seconds between two messages about a full server."""

_Phase: TypeAlias = Literal["head", "body", "answer", "unread", "closing"]
_INCOMPLETE: Final = ("head", "body", "closing")
"""Phases in which nobody works on a request, so that the connection may have to make room."""


class Limits(NamedTuple):
    """The limits of a server.

    Attributes:
        most: Connections at the same time.
        head: Seconds in which the first request's head has to come, from the connection on.
        idle: Seconds from an answer to the first byte of the next request.
        body: Seconds from the head of a request to the end of its body.
        unread: Seconds for which a peer may not read sent data.
        closing: Seconds in which a peer has to read the rest of an answer after which the connection ends.
    """

    most: int
    head: float = 5.0
    idle: int = 5
    body: float = 8.0
    unread: float = 20.0
    closing: float = 30.0


def descriptors() -> int:
    """The descriptors that this process may have, after it has asked for enough of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _WANTED if hard == resource.RLIM_INFINITY else min(_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        return most
    return _WANTED if soft == resource.RLIM_INFINITY else soft


class LimitedConnections(ServerState):
    """The connections of a server, within limits."""

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self.limits = limits
        self._told = -_QUIET

    def sweep(self, now: float) -> None:
        """End the connections whose peers are too slow. ``now`` is the event loop's time, in seconds."""
        for one in self._all():
            one.look(now)
            if one.overdue(now):
                self._end(one)

    def arrived(self, new: LimitedConnection, now: float) -> None:
        """Make room for a new connection by ending older idle ones; if there are none, end the new one."""
        if len(self.connections) <= self.limits.most:
            return
        for one in self._all():
            one.look(now)
        old = [one for one in self._all() if one.phase in _INCOMPLETE and one is not new]
        old.sort(key=lambda one: one.since)
        ended = old[: max(1, self.limits.most // _PART)] or [new]
        for one in ended:
            self._end(one)
        if now - self._told >= _QUIET:
            self._told = now
            _log.warning(
                "there are %d connections, and more may not be: %s",
                self.limits.most,
                "a new one was refused" if ended == [new] else f"{len(ended)} without a request were ended",
            )

    def _all(self) -> list[LimitedConnection]:
        return [one for one in self.connections if isinstance(one, LimitedConnection)]

    def _end(self, one: LimitedConnection) -> None:
        # The transport notifies its protocol in the loop's next round; this one must not count till then.
        self.connections.discard(one)
        if one.phase in ("unread", "closing"):
            # Otherwise the kernel keeps what the peer does not read.
            with contextlib.suppress(OSError):
                one.transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, _NO_LINGERING)
        one.transport.abort()


class LimitedConnection(H11Protocol):
    """One connection, which remembers since when its peer has been expected to do something."""

    server_state: LimitedConnections
    phase: _Phase = "head"
    since: float = 0.0
    """The time of the event loop at which the phase was first seen."""
    _of: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, if there is place."""
        super().connection_made(transport)
        self.since = self.loop.time()
        self.server_state.arrived(self, self.since)

    def look(self, now: float) -> None:
        """See what the connection is at, and keep since when."""
        phase = self._now()
        if (phase, self.cycle) != (self.phase, self._of):
            self.phase, self._of, self.since = phase, self.cycle, now

    def overdue(self, now: float) -> bool:
        """Whether the peer has taken more time than it may."""
        limits = self.server_state.limits
        seconds = {
            "head": limits.head if self._of is None else limits.idle + limits.head,
            "body": limits.body,
            "unread": limits.unread,
            "closing": limits.closing,
        }.get(self.phase)
        return seconds is not None and now - self.since >= seconds

    def _now(self) -> _Phase:
        at: RequestResponseCycle | None = self.cycle
        if self.transport.is_closing():
            return "closing"
        if at is None or at.response_complete:
            return "head"
        if at.more_body:
            return "body"
        return "unread" if self.flow.write_paused else "answer"
