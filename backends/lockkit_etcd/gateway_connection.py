"""One HTTP/1.1 connection to a member: a request out, its answer in, each before an end.

``http.client`` takes longer for headers that nobody reads than etcd takes to answer. What the gateway sends is little:
a status, a length or chunks, and JSON.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator

from lockkit.store.connecting import in_time, is_address
from lockkit.store.connections import Timed

__all__ = ["Connection", "Garbled", "connect"]

_BLOCK = 65_536
_LEAST = 0.005
_LONGEST_HEAD = 65_536
_DIGITS = 16
"""Most digits of a length."""
_LAST_CHUNK = b"0\r\n\r\n"
_DEAD = (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 3), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 14_000))
"""Keepalive of TCP: a connection without a sign of life counts as cut after 14 s."""


class Garbled(OSError):
    """The answer is not HTTP/1.1: the URL probably points at another kind of server."""


class Connection(Timed):
    """A connection.

    Attributes:
        kept: Whether the server keeps it open after the last answer.
    """

    __slots__ = ("_buffer", "kept")

    def __init__(self, connected: socket.socket) -> None:
        super().__init__(connected)
        self._buffer = b""
        self.kept = True

    # Each of these gives up when ``time.monotonic()`` is at ``end``.

    def ask(self, request: bytes, end: float, pause: float = 0.0) -> tuple[int, bytes]:
        """Send a request and return the status and the body of its answer.

        Args:
            request: Whole, with its body.
            end: See above.
            pause: Seconds to wait between two looks, for an answer of many small pieces: each look costs more than a piece.

        Raises:
            OSError: There is no whole answer, or none in time (TimeoutError).
        """
        self.send(request, end)
        status, head = self.head(end)
        if b"\r\ntransfer-encoding: chunked\r\n" not in head:
            return status, b"".join(self.body(head, end))
        raw, self._buffer = bytearray(self._buffer), b""
        while not raw.endswith(_LAST_CHUNK) or (whole := _unchunked(bytes(raw))) is None:
            if pause:
                time.sleep(pause)
            raw += self._recv(end)
        return status, whole

    def send(self, request: bytes, end: float) -> None:
        """Send a request whose answer is to be heard.

        Raises:
            OSError: The request could not be sent in time.
        """
        self._allowed = -1.0  # what is cut short cannot go on
        self._until(end)
        self._socket.sendall(request)

    def head(self, end: float) -> tuple[int, bytes]:
        """The status and the headers of an answer, in lower case.

        Raises:
            OSError: They do not come in time, or never will.
        """
        buffer = self._buffer
        while (at := buffer.find(b"\r\n\r\n")) < 0:
            if len(buffer) > _LONGEST_HEAD:
                raise Garbled("headers without an end")
            buffer += self._recv(end)
        self._buffer = buffer[at + 4 :]
        head = buffer[: at + 2].lower()
        if not head.startswith(b"http/1.") or not head[9:12].isdigit():
            raise Garbled(f"no answer of HTTP: {buffer[:40]!r}")
        self.kept = b"\r\nconnection: close\r\n" not in head
        return int(head[9:12]), head

    def body(self, head: bytes, end: float) -> Iterator[bytes]:
        """The body, piece by piece as it comes.

        Raises:
            OSError: The answer does not come in time, or never will.
        """
        _, found, rest = head.partition(b"\r\ncontent-length: ")
        if found:
            text = rest[: rest.index(b"\r")].strip()
            if not text.isdigit() or len(text) > _DIGITS:
                raise Garbled(f"no length of HTTP: {text[:40]!r}")
            yield self._take(int(text), end)
            return
        if b"\r\ntransfer-encoding: chunked\r\n" not in head:
            raise Garbled("an answer without a length")
        while True:
            size = self._chunk_size(end)
            piece = self._take(size + 2, end)
            if not size:
                return
            yield piece[:-2]

    def _chunk_size(self, end: float) -> int:
        while (at := self._buffer.find(b"\r\n")) < 0:
            self._buffer += self._recv(end)
        text, self._buffer = self._buffer[:at], self._buffer[at + 2 :]
        return _size(text)

    def _take(self, count: int, end: float) -> bytes:
        buffer = self._buffer
        if len(buffer) < count:
            pieces, have = [buffer], len(buffer)
            while have < count:
                pieces.append(self._recv(end))
                have += len(pieces[-1])
            buffer = b"".join(pieces)
        self._buffer = buffer[count:]
        return buffer[:count]

    def _recv(self, end: float) -> bytes:
        while True:
            self._until(end)
            try:
                block = self._socket.recv(_BLOCK)
            except TimeoutError:  # which may have come before the end
                continue
            if not block:
                raise ConnectionError("the server has closed the connection")
            return block

    def watched(self) -> None:
        """Have the operating system find out if the other side is dead although nothing is said for long."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _DEAD:
            if hasattr(socket, name):
                self._socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _unchunked(raw: bytes) -> bytes | None:
    """A body that came in chunks; None if there is more to come."""
    pieces: list[bytes] = []
    at = 0
    while (connection := raw.find(b"\r\n", at)) >= 0:
        size = _size(raw[at:connection])
        at = connection + 2 + size + 2
        if not size:
            return b"".join(pieces)
        pieces.append(raw[connection + 2 : at - 2])
    return None


def _size(text: bytes) -> int:
    """The size that a chunk begins with."""
    digits = text.partition(b";")[0].strip()
    try:
        size = int(digits, 16) if len(digits) <= _DIGITS else -1
    except ValueError:
        size = -1
    if size < 0:
        raise Garbled(f"no chunk of HTTP: {text[:40]!r}")
    return size


def connect(host: str, port: int, tls: ssl.SSLContext | None, budget: float) -> Connection:
    """A new connection.

    Raises:
        OSError: There is none to be had in time.
    """

    def connected() -> Connection:
        end = time.monotonic() + budget
        plain = socket.create_connection((host, port), timeout=max(budget, _LEAST))
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is None:
                return Connection(plain)
            plain.settimeout(max(end - time.monotonic(), _LEAST))
            return Connection(tls.wrap_socket(plain, server_hostname=host))
        except BaseException:
            plain.close()
            raise

    if is_address(host):
        return connected()
    return in_time(connected, Connection.close, budget, "lockkit-etcd-connect")
