"""One session of ZooKeeper by hand: it sends what it is told to and nothing else, not even a ping.

The messages are those of ``zookeeper.jute`` in ZooKeeper's sources: a length, then big-endian fields.
"""

from __future__ import annotations

import itertools
import socket
import struct
from types import TracebackType
from typing import NamedTuple, Self

__all__ = ["Answer", "Session", "SessionGone", "four_letter_word"]

CONNECT = struct.Struct("!iqiqi16s?")  # protocol, last zxid, timeout, session, its password, read only
CONNECTED = struct.Struct("!iiqi16s")  # protocol, timeout, session, its password
HEADER = struct.Struct("!ii")  # xid, kind
REPLY = struct.Struct("!iqi")  # xid, zxid, error
LENGTH = struct.Struct("!i")  # of what follows

SYNC, PING, CLOSE = 9, 11, -11
PING_XID = -2


class SessionGone(Exception):
    """The server does not know the session: it has expired or was closed, or its password is another."""


class Answer(NamedTuple):
    """An answer of the server.

    Attributes:
        zxid: The last change that the member had seen.
        error: 0, or one of ZooKeeper's ``KeeperException`` codes.
        body: What follows the header, unread.
    """

    zxid: int
    error: int
    body: bytes


class Session:
    """A session and its one connection; a context manager that hangs up, which leaves the session to expire.

    Attributes:
        id: The session's.
        password: What another connection needs to take the session over; kazoo's ``client_id`` is both.
        timeout: Seconds, as negotiated.
    """

    def __init__(
        self,
        address: tuple[str, int],
        *,
        timeout: float = 10.0,
        take_over: tuple[int, bytes] | None = None,
        patience: float = 5.0,
    ) -> None:
        """Open one, or take one over, which cuts the connection that it had.

        Args:
            address: Host and port of a member.
            timeout: Seconds of silence to ask for.
            take_over: Id and password of a session that exists.
            patience: Seconds to wait for any answer.

        Raises:
            SessionGone: There is none to take over.
            OSError: No answer in time, or none at all.
        """
        self._xids = itertools.count(1)
        self._socket = socket.create_connection(address, patience)
        try:
            known, password = take_over or (0, bytes(16))
            self._send(CONNECT.pack(0, 0, round(timeout * 1000), known, 16, password, False))
            _, granted, self.id, _, self.password = CONNECTED.unpack_from(self._receive())
        except BaseException:
            self._socket.close()
            raise
        self.timeout = granted / 1000
        if granted <= 0:
            self._socket.close()
            raise SessionGone(f"session {known:#x}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.hang_up()

    def ask(self, kind: int, body: bytes = b"") -> Answer:
        """Send one request and wait for its answer; events of watches are passed over.

        Raises:
            OSError: None came in time, or the connection is gone.
        """
        xid = PING_XID if kind == PING else next(self._xids)
        self._send(HEADER.pack(xid, kind) + body)
        while True:
            frame = self._receive()
            answered, zxid, error = REPLY.unpack_from(frame)
            if answered == xid:
                return Answer(zxid, error, frame[REPLY.size :])

    def ping(self) -> Answer:
        """Send a ping, as an idle client does; the member answers it without asking others."""
        return self.ask(PING)

    def sync(self, path: str = "/") -> Answer:
        """Let the member catch up with its leader, who is asked."""
        return self.ask(SYNC, LENGTH.pack(len(path.encode())) + path.encode())

    def end(self) -> None:
        """Close the session, and its ephemeral nodes with it; returns when that is done."""
        self.ask(CLOSE)
        self.hang_up()

    def hang_up(self) -> None:
        """Close the connection without a word."""
        self._socket.close()

    def _send(self, message: bytes) -> None:
        self._socket.sendall(LENGTH.pack(len(message)) + message)

    def _receive(self) -> bytes:
        (length,) = LENGTH.unpack(self._read(LENGTH.size))
        return self._read(length)

    def _read(self, size: int) -> bytes:
        read = b""
        while len(read) < size:
            piece = self._socket.recv(size - len(read))
            if not piece:
                raise ConnectionResetError("the server has closed the connection")
            read += piece
        return read


def four_letter_word(address: tuple[str, int], word: str, patience: float = 1.0) -> str:
    """Ask a member one of its administrator's words, such as ``mntr``.

    Raises:
        OSError: No answer in time, or none at all.
    """
    with socket.create_connection(address, patience) as connection:
        connection.sendall(word.encode())
        pieces = []
        while piece := connection.recv(65536):
            pieces.append(piece)
    return b"".join(pieces).decode()
