"""HTTP/1.1 as etcd's gateway uses it: a parser of its replies, and a blocking connection that reads them.

``http.client`` spends more time on unread headers than etcd needs to answer. The gateway sends little: a
status, a length or chunks, and JSON.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from lockkit.lib.namedtuples import made
from lockkit.store.connections import Timed

__all__ = ["Connection", "Garbled", "Parser", "Reply"]

_LONGEST_HEAD = 65_536
_DIGITS = 16
"""The most digits of a length."""
_PAUSE = 0.002
"""Seconds between two reads of a reply that comes in many small pieces, so that one read gets several."""
_DEAD = (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 3), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 14_000))
"""Keepalive of TCP: a connection without a sign of life counts as cut after 14 s."""


class Garbled(OSError):
    """The reply is not HTTP/1.1: the URL probably points at another kind of server."""


class Reply(NamedTuple):
    """A reply.

    Attributes:
        kept: Whether the server keeps the connection open.
    """

    status: int
    body: bytes
    kept: bool


class Parser:
    """The parser of the replies on one connection. See :class:`lockkit.store.exchanges.Parser`.

    Attributes:
        status: The status of the reply that is being read; 0 before its headers are complete.
        kept: Whether the server keeps the connection open after that reply.
    """

    __slots__ = ("_body", "_length", "_raw", "kept", "status")

    def __init__(self) -> None:
        self._raw = bytearray()
        self._body: list[bytes] = []
        self._length = -1
        self.status = 0
        self.kept = True

    @property
    def between(self) -> bool:
        """Whether every byte so far belongs to a whole reply."""
        return not (self._raw or self.status)

    def feed(self, data: bytes) -> list[Reply]:
        """Take in the next bytes, and return the replies that they complete.

        Raises:
            Garbled: They are not HTTP.
        """
        self._raw += data
        whole: list[Reply] = []
        while (self.status or self._head()) and (self._chunks() if self._length < 0 else self._sized()):
            whole.append(made(Reply, (self.status, self.taken(), self.kept)))
            self.status = 0
        return whole

    def cut_short(self, replies: Sequence[Reply], error: OSError) -> Exception:  # noqa: ARG002
        """See :class:`lockkit.store.exchanges.Parser`."""
        return error

    def taken(self) -> bytes:
        """The part of an unfinished body that has come since the last call; the reply has only the rest."""
        pieces, self._body = self._body, []
        return b"".join(pieces)

    def _head(self) -> bool:
        raw = self._raw
        end = raw.find(b"\r\n\r\n")
        if end < 0:
            if len(raw) > _LONGEST_HEAD:
                raise Garbled("the headers do not end")
            return False
        head = bytes(raw[: end + 2]).lower()
        if not head.startswith(b"http/1.") or not head[9:12].isdigit():
            raise Garbled(f"not an HTTP reply: {head[:40]!r}")
        _, sized, rest = head.partition(b"\r\ncontent-length: ")
        length = rest[: rest.find(b"\r")].strip() if sized else b""
        if sized and (not length.isdigit() or len(length) > _DIGITS):
            raise Garbled(f"not a content length: {length[:40]!r}")
        if not sized and b"\r\ntransfer-encoding: chunked\r\n" not in head:
            raise Garbled("a reply without a length")
        del raw[: end + 4]
        self.status, self._length = int(head[9:12]), int(length) if sized else -1
        self.kept = b"\r\nconnection: close\r\n" not in head
        return True

    def _sized(self) -> bool:
        if len(self._raw) < self._length:
            return False
        self._body.append(bytes(self._raw[: self._length]))
        del self._raw[: self._length]
        return True

    def _chunks(self) -> bool:
        text, at, size = bytes(self._raw), 0, -1
        while size and (begin := text.find(b"\r\n", at) + 2) > 1:
            size = _size(text[at : begin - 2])
            if len(text) < begin + size + 2:
                size = -1
                break
            self._body.append(text[begin : begin + size])
            at = begin + size + 2
        del self._raw[:at]
        return size == 0


@lru_cache(maxsize=64)  # the answers to the keepalives of a heartbeat are thousands of chunks of a few sizes
def _size(text: bytes) -> int:
    """The size that a chunk begins with."""
    digits = text.partition(b";")[0].strip()
    try:
        size = int(digits, 16) if len(digits) <= _DIGITS else -1
    except ValueError:
        size = -1
    if size < 0:
        raise Garbled(f"not an HTTP chunk: {text[:40]!r}")
    return size


class Connection(Timed):
    """A blocking connection. Each call gives up when ``time.monotonic()`` is at ``end``."""

    __slots__ = ()

    def exchange(self, packed: bytes, end: float, replies: int) -> Sequence[Reply]:
        """Send a request and return its replies.

        Raises:
            OSError: There is no whole reply, or none in time (TimeoutError).
        """
        self.send(packed, end)
        parser = Parser()
        found = parser.feed(self.receive(end))
        while len(found) < replies:
            if not parser.kept:
                time.sleep(_PAUSE)
            found += parser.feed(self.receive(end))
        if not parser.between or len(found) > replies:
            raise Garbled("a reply without a request")
        return found

    introduce = exchange

    def watched(self) -> None:
        """Have the operating system notice a dead peer even if neither side sends anything for long."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _DEAD:
            if hasattr(socket, name):
                self._socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
